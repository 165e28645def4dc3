"""The relevant (product, label) pairs of a batch, laid out in plain torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from kernels._inputs import Masks

__all__ = ["Entries", "Group", "cumulated", "entries_of"]


class Group(NamedTuple):
    """The products of one mask row.

    Attributes:
        products: increasing; start, end: of the row's labels in the mask table.
    """

    products: list[int]
    start: int
    end: int

    @property
    def num_labels(self) -> int:
        """Entries of each of the products."""
        return self.end - self.start


@dataclass(frozen=True)
class Entries:
    """The relevant (product, label) pairs of a batch, product by product.

    Attributes:
        mask_indices: [nnz], int64; mask_rows: [B], int64: as the op was given them.
        groups: those products that have labels, by mask row.
        ends: [B + 1]: as ``indptr``, on the host.
    """

    mask_indices: Tensor
    mask_rows: Tensor
    groups: Sequence[Group]
    ends: Sequence[int]

    @property
    def num_products(self) -> int:
        """B."""
        return len(self.ends) - 1

    @property
    def num_entries(self) -> int:
        """N."""
        return self.ends[-1]

    @cached_property
    def indptr(self) -> Tensor:
        """Product i owns entries ``indptr[i]:indptr[i + 1]``; [B + 1], int64."""
        return self.mask_rows.new_tensor(self.ends)

    @cached_property
    def label_rows(self) -> Tensor:
        """The label of each entry, increasing within a product; [N], int64."""
        if len(self.groups) == 1 and len(self.groups[0].products) == 1:
            return self.mask_indices[self.groups[0].start : self.groups[0].end]
        starts = {product: start for products, start, _ in self.groups for product in products}
        # Indexed, not index_select: that one would copy a table that is not contiguous.
        return self.mask_indices[self.places(starts)]

    def places(self, starts: Mapping[int, int]) -> Tensor:
        """Where each entry lies, [N], int64, if product i's lie side by side from ``starts[i]``."""
        shifts = [
            starts.get(product, 0) - self.ends[product] for product in range(self.num_products)
        ]
        places = self._repeated(self.mask_rows.new_tensor(shifts))
        return places.add_(torch.arange(self.num_entries, device=places.device))

    def owners(self) -> Tensor:
        """The product of each entry, [N], int64."""
        return self._repeated(torch.arange(self.num_products, device=self.mask_rows.device))

    def _repeated(self, of_products: Tensor) -> Tensor:
        """A value a product to one an entry."""
        lengths = self.indptr.diff()
        return torch.repeat_interleave(of_products, lengths, output_size=self.num_entries)


def entries_of(masks: Masks) -> Entries:
    """The entries of a batch.

    Raises:
        IndexError: a mask row that the table does not have.
    """
    mask_indptr, mask_indices, mask_rows = masks[:3]
    num_masks = len(mask_indptr) - 1
    # On the host: a batch has thousands of products at most, and a step in torch costs as much for
    # one of them.
    products_of: dict[int, list[int]] = {}
    for product, row in enumerate(mask_rows.tolist()):
        if row >= 0:
            products_of.setdefault(row, []).append(product)
    if products_of and max(products_of) >= num_masks:
        raise IndexError(
            f"mask_rows names row {max(products_of)} of a mask table of {num_masks} rows"
        )
    rows = mask_rows.new_tensor(list(products_of))
    starts = mask_indptr.index_select(0, rows).tolist()
    ends = mask_indptr.index_select(0, rows + 1).tolist()
    groups = [
        Group(products, start, end)
        for products, start, end in zip(products_of.values(), starts, ends, strict=True)
        if end > start
    ]
    lengths = [0] * len(mask_rows)
    for group in groups:
        for product in group.products:
            lengths[product] = group.num_labels
    return Entries(mask_indices, mask_rows, groups, [0, *accumulate(lengths)])


def cumulated(lengths: Tensor) -> Tensor:
    """Row pointers of rows of the given lengths: [n] to [n + 1]."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=indptr[1:])
    return indptr
