"""The logits of a batch's entries in plain torch, one of two ways.

``sampled``: ``torch.sparse.sampled_addmm`` takes a dot product for each wanted pair and no others.
``grouped``: a product of matrices for each distinct mask row, over a copy of its label rows, which
wins where products share categories. Weights narrower than the arithmetic are widened: for
``sampled`` all touched rows at once, for ``grouped`` those of one product of matrices.
"""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding

from kernels._entries_torch import Entries, entries_of
from kernels._inputs import Heads, Masks
from kernels._ways_torch import Problem, Way, choose

__all__ = ["entry_logits", "force_way", "sparse_rows", "taken_way"]

_forced: dict[str, Way] = {}
_taken: dict[str, Way] = {}

# Marking a label takes a part of the time of sorting an entry.
_MARKS_AN_ENTRY = 32
# Of label rows that ``grouped`` copies at once: 16 MB in float32, which caches half hold.
_BLOCK_ELEMENTS = 4_000_000
# Parts for each thread that the label rows of a single product are multiplied in.
_PARTS_A_THREAD = 4

# Torch warns once that compressed sparse tensors are in beta. What is used of them here is pinned
# by tests, and the warning would come out of the first batch.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
    torch.sparse_csr_tensor([0, 0], [], [], size=(1, 1), check_invariants=False)


def entry_logits(heads: Heads, masks: Masks, temperature: float) -> tuple[Entries, Tensor]:
    """The entries of a batch and ``(features @ weight.T + bias) / T`` of each, [N].

    Raises:
        IndexError: a mask row that the table does not have.
        ValueError: more entries than ``num_entries``.
    """
    entries = entries_of(masks)
    if masks.num_entries is not None and masks.num_entries < entries.num_entries:
        raise ValueError(f"num_entries is {masks.num_entries}, the batch has {entries.num_entries}")
    heads = heads._replace(features=heads.features.to(heads.compute_dtype))
    if entries.num_entries == 0:
        return entries, heads.features.new_zeros(0)
    is_grouped = heads.features.shape[1] > 0 and _way(entries, heads) == "grouped"
    logits = _grouped(entries, heads) if is_grouped else _sampled(entries, heads)
    return entries, logits.div_(temperature)


def force_way(way: Way | None) -> None:
    """Go one way whatever the model of time says, for tests and benchmarks; None: as it says."""
    _forced.clear()
    if way is not None:
        _forced["way"] = way


def taken_way() -> Way | None:
    """The way of the last call that had entries, for benchmarks; None: there was none."""
    return _taken.get("way")


def _way(entries: Entries, heads: Heads) -> Way:
    way = _taken["way"] = _forced.get("way") or choose(
        Problem(
            num_products=entries.num_products,
            num_features=heads.weight.shape[1],
            num_labels=len(heads.weight),
            num_entries=entries.num_entries,
            num_groups=len(entries.groups),
            num_row_labels=sum(group.num_labels for group in entries.groups),
            is_narrow=heads.weight.dtype != heads.features.dtype,
        )
    )
    return way


def _sampled(entries: Entries, heads: Heads) -> Tensor:
    """One dot product for each entry, [N]."""
    features, weight, bias = heads
    columns = entries.label_rows
    of_bias = bias.index_select(0, columns)
    if weight.dtype != features.dtype:
        labels, columns = _touched(columns, len(weight))
        weight = embedding(labels, weight).to(features.dtype)
    wanted = sparse_rows(entries.indptr, columns, of_bias.to(features.dtype), len(weight))
    if features.shape[1] == 0:  # which MKL refuses
        return wanted.values()
    sampled: Tensor = torch.sparse.sampled_addmm(wanted, features, weight.t())
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


def _grouped(entries: Entries, heads: Heads) -> Tensor:
    """A product of matrices for each distinct mask row, [N]."""
    features = heads.features
    order = [product for group in entries.groups for product in group.products]
    if order != list(range(len(features))):
        features = features[order]
    # In the groups' order.
    logits = torch.empty(entries.num_entries, dtype=features.dtype, device=features.device)
    rows = _RowBuffer(heads, max(group.num_labels for group in entries.groups))
    starts = {}
    first = at = 0
    for group in entries.groups:
        count, num_labels = len(group.products), group.num_labels
        chosen = features[first : first + count]
        block = logits[at : at + count * num_labels].view(count, num_labels)
        for offset in range(0, num_labels, rows.size):
            stretch = slice(offset, min(num_labels, offset + rows.size))
            labels = entries.mask_indices[group.start + stretch.start : group.start + stretch.stop]
            block[:, stretch] = rows.logits(labels, chosen).t()
        for product in group.products:
            starts[product] = at
            at += num_labels
        first += count
    in_order = all(before < after for before, after in pairwise(order))
    return logits if in_order else logits.index_select(0, entries.places(starts))


class _RowBuffer:
    """Some label rows at a time, each copied to where the last ones were.

    Args:
        heads: features [B, D] in the dtype of the arithmetic; most: rows wanted at once, at most.
    """

    def __init__(self, heads: Heads, most: int) -> None:
        (_, num_features), device = heads.features.shape, heads.features.device
        self.size = max(1, min(most, _BLOCK_ELEMENTS // num_features))
        self._heads = heads
        self._parts = min(_PARTS_A_THREAD * torch.get_num_threads(), self.size)
        shape = -(-self.size // self._parts) * self._parts, num_features
        self._copied = torch.empty(shape, dtype=heads.weight.dtype, device=device)
        self._rows = self._copied
        if heads.weight.dtype != heads.features.dtype:
            self._rows = torch.empty(shape, dtype=heads.features.dtype, device=device)

    def logits(self, labels: Tensor, features: Tensor) -> Tensor:
        """Of some labels and products, features [n, D]: [labels, n]."""
        num_labels = len(labels)
        torch.index_select(self._heads.weight, 0, labels, out=self._copied[:num_labels])
        if self._rows is not self._copied:
            self._rows[:num_labels] = self._copied[:num_labels]
        bias = self._heads.bias.index_select(0, labels)[:, None]
        if len(features) > 1:
            return torch.mm(self._rows[:num_labels], features.t()).add_(bias)
        # A vector by parts of the rows: as one product MKL gives them to other threads than torch
        # filled them in, up to three times slower. What rows beyond the labels give is not read.
        size = -(-num_labels // self._parts) * self._parts
        parts = self._rows[:size].view(self._parts, -1, features.shape[1])
        vectors = features.t().expand(self._parts, -1, 1)
        return torch.bmm(parts, vectors).view(-1, 1)[:num_labels].add_(bias)


def sparse_rows(indptr: Tensor, columns: Tensor, values: Tensor, num_columns: int) -> Tensor:
    """A sparse matrix of the given rows."""
    return torch.sparse_csr_tensor(
        indptr, columns, values, size=(len(indptr) - 1, num_columns), check_invariants=False
    )
