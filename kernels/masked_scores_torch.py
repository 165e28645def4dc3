"""``masked_scores`` in plain torch: any device, and the oracle of the kernels.

Arguments are those of the public functions, already checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels._entries_torch import compute_dtype, cumulated, entries_of, logits_of

__all__ = ["check_num_entries", "masked_scores", "masked_scores_above", "masked_top_k"]


def masked_scores(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    temperature: float,
    num_entries: int | None,
    num_categories: int | None,
) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores``."""
    indptr, _, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries
    )
    return indptr, scores if num_entries is None else _padded(scores, num_entries, 0)


def masked_scores_above(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    threshold: float,
    thresholds: Tensor | None,
    temperature: float,
    num_entries: int | None,
    num_categories: int | None,
    padded: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores_above``; ``thresholds`` [L] where given."""
    indptr, label_rows, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries
    )
    if thresholds is None:
        above = scores >= torch.tensor(threshold, dtype=scores.dtype)
    else:
        above = scores >= thresholds.to(scores.dtype).index_select(0, label_rows)
    kept_indptr, label_rows, scores = cumulated(above)[indptr], label_rows[above], scores[above]
    if padded and num_entries is not None:
        return kept_indptr, _padded(label_rows, num_entries, -1), _padded(scores, num_entries, 0)
    return kept_indptr, label_rows, scores


def masked_top_k(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    k: int,
    temperature: float,
    num_entries: int | None,
    num_categories: int | None,
) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_top_k``."""
    indptr, label_rows, scores = _scored(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries
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
    num_entries: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointers, label rows and scores of every relevant label."""
    dtype = compute_dtype(features, weight, bias)
    entries = entries_of(mask_indptr, mask_indices, mask_rows)
    check_num_entries(num_entries, len(entries.label_rows))
    logits = logits_of(entries, features.to(dtype), weight)
    logits += bias.to(dtype).index_select(0, entries.label_rows)
    return entries.indptr, entries.label_rows, logits.div_(temperature).sigmoid_()


def check_num_entries(bound: int | None, num_entries: int) -> None:
    """A bound that the entries fit in.

    Raises:
        ValueError: they do not.
    """
    if bound is not None and bound < num_entries:
        raise ValueError(f"num_entries is {bound}, the batch has {num_entries}")


def _padded(values: Tensor, size: int, fill: int) -> Tensor:
    padded = values.new_full((size,), fill)
    padded[: len(values)] = values
    return padded
