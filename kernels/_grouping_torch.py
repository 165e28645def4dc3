"""Products grouped by mask row: what the torch twins of the masked ops share.

Products of one category have the same relevant labels, so each group is a dense product of its
features with the gathered rows of the weight. See README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Group", "Grouped", "compute_dtype", "cumulated"]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 where a tensor is."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


@dataclass(frozen=True, slots=True)
class Group:
    """The products of one mask row; ``count`` of them, with ``num_labels`` relevant labels each.

    Products and entries are numbered in the grouped order.
    """

    labels: Tensor  # [num_labels], int64: label rows
    first: int  # first product
    count: int
    entry: int  # first entry; the group's entries are [count, num_labels], row by row

    def of(self, entries: Tensor) -> Tensor:
        """The group's part of a tensor of all entries, [count, num_labels], as a view."""
        num_labels = len(self.labels)
        part = entries[self.entry : self.entry + self.count * num_labels]
        return part.view(self.count, num_labels)


class Grouped:
    """A batch in the order of its mask rows.

    Args: as the public ops.

    Attributes:
        order: [B], int64: the product at each place of the grouped order.
        indptr: [B + 1], int64: entries of each product, in the grouped order.
        label_rows: [N], int64: the label of each entry.
    """

    def __init__(self, mask_indptr: Tensor, mask_indices: Tensor, mask_rows: Tensor) -> None:
        self._mask_indices = mask_indices
        rows, self.order = torch.sort(mask_rows, stable=True)
        at = rows.clamp(min=0)
        if len(mask_indptr) == 1:
            if bool((rows >= 0).any()):
                raise IndexError("mask_rows names a row of a mask table without rows")
            starts = lengths = torch.zeros_like(rows)
        else:
            starts = mask_indptr[:-1].index_select(0, at)
            lengths = mask_indptr[1:].index_select(0, at) - starts
            lengths = lengths.masked_fill_(rows < 0, 0)
        self.lengths = lengths
        self.indptr = cumulated(lengths)
        _, counts = torch.unique_consecutive(rows, return_counts=True)
        first = cumulated(counts)[:-1]
        # One copy to the host for all groups.
        self._groups: list[list[int]] = torch.stack(
            [first, counts, starts[first], lengths[first], self.indptr[first]], dim=1
        ).tolist()
        shift = torch.repeat_interleave(starts - self.indptr[:-1], lengths)
        places = torch.arange(len(shift), device=shift.device) + shift
        self.label_rows = mask_indices.index_select(0, places)

    def __iter__(self) -> Iterator[Group]:
        """The groups that have labels."""
        for first, count, start, num_labels, entry in self._groups:
            if num_labels:
                yield Group(self._mask_indices[start : start + num_labels], first, count, entry)

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``features @ weight.T + bias`` of every entry, [N], float32 (float64).

        Args:
            features: [B, D], in the grouped order.
        """
        dtype = compute_dtype(features, weight, bias)
        features = features.to(dtype)
        entries = torch.empty(len(self.label_rows), dtype=dtype, device=features.device)
        for group in self:
            products = features[group.first : group.first + group.count]
            gathered = weight.index_select(0, group.labels).to(dtype)
            torch.mm(products, gathered.t(), out=group.of(entries))
        return entries.add_(bias.to(dtype).index_select(0, self.label_rows))

    def in_given_order(self, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers [B + 1], label rows [N] and ``entries`` [N], product by product as given."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place), device=place.device)
        lengths = self.lengths[place]
        indptr = cumulated(lengths)
        shift = torch.repeat_interleave(self.indptr[:-1][place] - indptr[:-1], lengths)
        source = torch.arange(len(shift), device=shift.device) + shift
        return indptr, self.label_rows[source], entries[source]


def cumulated(lengths: Tensor) -> Tensor:
    """Row pointers of rows of the given lengths: [n] to [n + 1]."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=indptr[1:])
    return indptr
