"""``masked_scores`` in plain torch: any device, and the oracle of the kernels.

Arguments are those of the public functions, already checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels._grouping_torch import Grouped, cumulated

__all__ = ["masked_scores", "masked_scores_above", "masked_top_k"]


def masked_scores(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores``."""
    indptr, _, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature
    )
    return indptr, scores


def masked_scores_above(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    threshold: Tensor | float,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores_above``."""
    indptr, label_rows, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature
    )
    if isinstance(threshold, Tensor):
        threshold = threshold.to(scores.dtype).index_select(0, label_rows)
    above = scores >= threshold
    return cumulated(above)[indptr], label_rows[above], scores[above]


def masked_top_k(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    k: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_top_k``."""
    indptr, label_rows, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature
    )
    lengths = indptr.diff()
    products = torch.repeat_interleave(torch.arange(len(lengths), device=indptr.device), lengths)
    # Two stable sorts: by score, then by product; equal scores keep the order of their labels.
    by_score = torch.sort(scores, descending=True, stable=True).indices
    best = by_score[torch.sort(products[by_score], stable=True).indices]
    ranks = torch.arange(len(best), device=indptr.device) - indptr[:-1][products]
    kept = ranks < k
    places = (products[kept], ranks[kept])
    top_labels = label_rows.new_full((len(lengths), k), -1)
    top_scores = scores.new_zeros((len(lengths), k))
    top_labels[places] = label_rows[best[kept]]
    top_scores[places] = scores[best[kept]]
    return top_labels, top_scores


@torch.no_grad()
def _scored(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointers, label rows and scores of every relevant label."""
    grouped = Grouped(mask_indptr, mask_indices, mask_rows)
    logits = grouped.logits(features.index_select(0, grouped.order), weight, bias)
    return grouped.in_given_order(logits.div_(temperature).sigmoid_())
