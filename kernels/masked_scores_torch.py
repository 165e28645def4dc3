"""``masked_scores`` in plain torch: any device, and the oracle of the kernels.

Arguments are those of the public functions, already checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels._entries_torch import Entries, cumulated
from kernels._inputs import Heads, Masks
from kernels._logits_torch import entry_logits

__all__ = ["masked_scores", "masked_scores_above", "masked_top_k"]


def masked_scores(heads: Heads, masks: Masks, temperature: float) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores``."""
    entries, scores = _scored(heads, masks, temperature)
    if masks.num_entries is not None:
        scores = _padded(scores, masks.num_entries, 0)
    return entries.indptr, scores


def masked_scores_above(
    heads: Heads,
    masks: Masks,
    temperature: float,
    threshold: float,
    thresholds: Tensor | None,
    padded: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores_above``; ``thresholds`` [L] where given."""
    entries, scores = _scored(heads, masks, temperature)
    label_rows = entries.label_rows
    if thresholds is None:
        above = scores >= torch.tensor(threshold, dtype=scores.dtype)
    else:
        above = scores >= thresholds.to(scores.dtype).index_select(0, label_rows)
    label_rows, scores = label_rows[above], scores[above]
    if padded and masks.num_entries is not None:
        label_rows = _padded(label_rows, masks.num_entries, -1)
        scores = _padded(scores, masks.num_entries, 0)
    return cumulated(above)[entries.indptr], label_rows, scores


def masked_top_k(heads: Heads, masks: Masks, temperature: float, k: int) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_top_k``."""
    entries, scores = _scored(heads, masks, temperature)
    label_rows, products = entries.label_rows, entries.owners()
    # Two stable sorts: by score, then by product; equal scores keep the order of their labels.
    by_score = torch.sort(scores, descending=True, stable=True).indices
    best = by_score[torch.sort(products[by_score], stable=True).indices]
    ranks = torch.arange(len(best), device=best.device) - entries.indptr[:-1][products]
    kept = ranks < k
    places = (products[kept], ranks[kept])
    top_labels = label_rows.new_full((entries.num_products, k), -1)
    top_scores = scores.new_zeros((entries.num_products, k))
    top_labels[places] = label_rows[best[kept]]
    top_scores[places] = scores[best[kept]]
    return top_labels, top_scores


@torch.no_grad()
def _scored(heads: Heads, masks: Masks, temperature: float) -> tuple[Entries, Tensor]:
    """Every relevant label's entry and score."""
    entries, logits = entry_logits(heads, masks, temperature)
    return entries, logits.sigmoid_()


def _padded(values: Tensor, size: int, fill: int) -> Tensor:
    padded = values.new_full((size,), fill)
    padded[: len(values)] = values
    return padded
