"""A batch's entries and their logits in plain torch: a product sampled at the relevant labels.

``torch.sparse.sampled_addmm`` takes a dot product for each wanted pair and no others. Where nearly
all pairs of products and touched labels are wanted (products of few categories), a dense product
over the touched labels is faster, and picks. Weights narrower than the arithmetic are widened: the
touched rows at once, or, where these are many, those of a few products at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from kernels._inputs import Heads, Masks
from kernels._ways_torch import CHUNK_ELEMENTS, Problem, Way, choose

__all__ = ["Entries", "cumulated", "entries_of", "entry_logits", "force_way", "sparse_rows"]

_forced: dict[str, Way] = {}

# Marking a label takes a part of the time of sorting an entry.
_MARKS_AN_ENTRY = 32

# Torch warns once that compressed sparse tensors are in beta. What is used of them here is pinned
# by tests, and the warning would come out of the first batch.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
    torch.sparse_csr_tensor([0, 0], [], [], size=(1, 1), check_invariants=False)


@dataclass(frozen=True, slots=True)
class Entries:
    """The relevant (product, label) pairs of a batch, product by product.

    Attributes:
        indptr: [B + 1], int64; label_rows: [N], int64, increasing within a product.
        num_row_labels: labels of the batch's distinct mask rows, together: a bound on how many
            labels are touched.
    """

    indptr: Tensor
    label_rows: Tensor
    num_row_labels: int

    @property
    def num_products(self) -> int:
        """B."""
        return len(self.indptr) - 1

    def owners(self) -> Tensor:
        """The product of each entry, [N], int64."""
        products = torch.arange(self.num_products, device=self.indptr.device)
        return torch.repeat_interleave(
            products, self.indptr.diff(), output_size=len(self.label_rows)
        )


def entry_logits(heads: Heads, masks: Masks, temperature: float) -> tuple[Entries, Tensor]:
    """The entries of a batch and ``(features @ weight.T + bias) / T`` of each, [N].

    Raises:
        IndexError: a mask row that the table does not have.
        ValueError: more entries than ``num_entries``.
    """
    dtype = heads.compute_dtype
    entries = entries_of(masks)
    num_entries = len(entries.label_rows)
    if masks.num_entries is not None and masks.num_entries < num_entries:
        raise ValueError(f"num_entries is {masks.num_entries}, the batch has {num_entries}")
    logits = _logits_of(entries, heads.features.to(dtype), heads.weight)
    logits += heads.bias.to(dtype).index_select(0, entries.label_rows)
    return entries, logits.div_(temperature)


def entries_of(masks: Masks) -> Entries:
    """The entries of a batch.

    Raises:
        IndexError: a mask row that the table does not have.
    """
    mask_indptr, mask_indices, mask_rows = masks[:3]
    num_masks = len(mask_indptr) - 1
    rows = torch.unique(mask_rows)
    rows = rows[torch.searchsorted(rows, 0) :] if len(rows) else rows
    if len(rows) and int(rows[-1]) >= num_masks:
        raise IndexError(f"mask_rows names row {int(rows[-1])} of a mask table of {num_masks} rows")
    row_lengths = mask_indptr.index_select(0, rows + 1) - mask_indptr.index_select(0, rows)
    if len(rows) == 0:  # no product has labels
        indptr = torch.zeros(len(mask_rows) + 1, dtype=torch.int64, device=mask_rows.device)
        return Entries(indptr, mask_indices[:0], 0)
    known = mask_rows.clamp(min=0)
    first = mask_indptr.index_select(0, known)
    lengths = (mask_indptr.index_select(0, known + 1) - first).masked_fill_(mask_rows < 0, 0)
    indptr = cumulated(lengths)
    places = torch.repeat_interleave(first - indptr[:-1], lengths)
    places += torch.arange(len(places), device=places.device)
    # Indexed, not index_select: that one would copy a table that is not contiguous.
    return Entries(indptr, mask_indices[places], int(row_lengths.sum()))


def _logits_of(entries: Entries, features: Tensor, weight: Tensor) -> Tensor:
    """``features @ weight.T`` of every entry, [N], in the features' dtype.

    Args:
        features: [B, D], float32 or float64; weight: [L, D], any float.
    """
    num_entries = len(entries.label_rows)
    if num_entries == 0 or features.shape[1] == 0:
        return features.new_zeros(num_entries)
    if weight.dtype == features.dtype:
        # Finding the touched labels takes longer than most batches: a bound has to do.
        if _way(entries, features, weight, min(entries.num_row_labels, len(weight))) != "dense":
            return _sampled(entries.indptr, entries.label_rows, features, weight)
        labels, columns = _touched(entries.label_rows, len(weight))
        return _picked(entries, columns, features, embedding(labels, weight))
    labels, columns = _touched(entries.label_rows, len(weight))
    way = _way(entries, features, weight, len(labels))
    if way == "chunked":
        return _chunked(entries, features, weight)
    rows = embedding(labels, weight).to(features.dtype)
    if way == "dense":
        return _picked(entries, columns, features, rows)
    return _sampled(entries.indptr, columns, features, rows)


def force_way(way: Way | None) -> None:
    """Go one way whatever the model of time says, for tests and benchmarks; None: as it says.

    ``chunked`` is ``sampled`` where nothing has to be widened.
    """
    _forced.clear()
    if way is not None:
        _forced["way"] = way


def _way(entries: Entries, features: Tensor, weight: Tensor, num_touched: int) -> Way:
    problem = Problem(
        num_products=entries.num_products,
        num_features=weight.shape[1],
        num_labels=len(weight),
        num_entries=len(entries.label_rows),
        num_touched=num_touched,
        num_row_labels=entries.num_row_labels,
        is_narrow=weight.dtype != features.dtype,
    )
    return _forced.get("way") or choose(problem)


def _picked(entries: Entries, columns: Tensor, features: Tensor, rows: Tensor) -> Tensor:
    """All pairs of products and touched label rows, and of these the entries'."""
    dense = features @ rows.t()
    return dense.flatten().index_select(0, entries.owners() * len(rows) + columns)


def _chunked(entries: Entries, features: Tensor, weight: Tensor) -> Tensor:
    chunks = _chunks(entries.indptr, max(1, CHUNK_ELEMENTS // weight.shape[1]))
    return torch.cat(
        [
            _sampled_widened(
                entries.indptr[first : end + 1], entries.label_rows, features[first:end], weight
            )
            for first, end in chunks
        ]
    )


def _chunks(indptr: Tensor, num_entries: int) -> Iterator[tuple[int, int]]:
    """First and end of stretches of products of at most so many entries, or of one product."""
    first, num_products = 0, len(indptr) - 1
    while first < num_products:
        most = indptr[first] + num_entries
        end = max(first + 1, int(torch.searchsorted(indptr, most, right=True)) - 1)
        yield first, min(end, num_products)
        first = end


def _sampled_widened(
    indptr: Tensor, label_rows: Tensor, features: Tensor, weight: Tensor
) -> Tensor:
    """Logits of some products, with the label rows that they read widened to features' dtype."""
    label_rows = label_rows[int(indptr[0]) : int(indptr[-1])]
    labels, columns = _touched(label_rows, len(weight))
    rows = embedding(labels, weight).to(features.dtype)
    return _sampled(indptr - indptr[0], columns, features, rows)


def _sampled(indptr: Tensor, columns: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    wanted = sparse_rows(indptr, columns, features.new_zeros(len(columns)), len(weight))
    sampled: Tensor = torch.sparse.sampled_addmm(wanted, features, weight.t(), beta=0.0)
    return sampled.values()


def _touched(label_rows: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Distinct labels, sorted, and the place of each entry's among them."""
    if _MARKS_AN_ENTRY * len(label_rows) < num_labels:
        labels, columns = torch.unique(label_rows, return_inverse=True)
        return labels, columns
    # Marking every label is faster than sorting the entries.
    is_touched = torch.zeros(num_labels, dtype=torch.bool, device=label_rows.device)
    is_touched[label_rows] = True
    places = is_touched.cumsum(0) - 1
    return is_touched.nonzero()[:, 0], places.index_select(0, label_rows)


def sparse_rows(indptr: Tensor, columns: Tensor, values: Tensor, num_columns: int) -> Tensor:
    """A sparse matrix of the given rows."""
    return torch.sparse_csr_tensor(
        indptr, columns, values, size=(len(indptr) - 1, num_columns), check_invariants=False
    )


def cumulated(lengths: Tensor) -> Tensor:
    """Row pointers of rows of the given lengths: [n] to [n + 1]."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=indptr[1:])
    return indptr
