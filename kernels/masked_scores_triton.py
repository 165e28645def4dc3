"""``masked_scores`` and its cut forms as Triton kernels. Arguments are those of the twin."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels._inputs import Heads, Masks
from kernels._logits_triton import Batch, entries, scored
from kernels._rows_triton import FUSED
from kernels._select_kernels_triton import above_kernel, count_above_kernel, top_k_kernel

__all__ = ["masked_scores", "masked_scores_above", "masked_top_k"]

BLOCK_N = 256
# Lengths of the running list of the best; a longer one would not stay in registers.
TOP_BLOCKS_K = (2, 4, 8, 16, 32, 64, 128)
# Of a chunk that is merged into that list; at least the list's own length.
TOP_BLOCK_N = 256


def masked_scores(heads: Heads, masks: Masks, temperature: float) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores``."""
    batch = entries(masks)
    return batch.indptr, scored(batch, heads, temperature, sigmoid=True)


def masked_scores_above(
    heads: Heads,
    masks: Masks,
    temperature: float,
    threshold: float,
    thresholds: Tensor | None,
    padded: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_scores_above``; ``thresholds`` [L] where given."""
    batch = entries(masks)
    scores = scored(batch, heads, temperature, sigmoid=True)
    thresholds = thresholds.contiguous() if thresholds is not None else None
    kept_indptr = torch.zeros(batch.num_products + 1, dtype=torch.int64, device=scores.device)
    if batch.num_products and batch.num_entries:
        counts = torch.empty(batch.num_products, dtype=torch.int64, device=scores.device)
        count_above_kernel[(batch.num_products,)](
            scores,
            *batch.tables,
            scores if thresholds is None else thresholds,
            counts,
            threshold,
            batch.num_entries,
            batch.num_masks,
            PER_LABEL=thresholds is not None,
            BLOCK_N=BLOCK_N,
            **FUSED,
        )
        torch.cumsum(counts, 0, out=kept_indptr[1:])
    num_kept = batch.num_entries if padded else int(kept_indptr[-1])
    labels = torch.full((num_kept,), -1, dtype=torch.int64, device=scores.device)
    kept = torch.zeros(num_kept, dtype=torch.float32, device=scores.device)
    if num_kept:
        above_kernel[(batch.num_products,)](
            scores,
            *batch.tables,
            scores if thresholds is None else thresholds,
            kept_indptr,
            labels,
            kept,
            threshold,
            batch.num_entries,
            num_kept,
            batch.num_masks,
            PER_LABEL=thresholds is not None,
            BLOCK_N=BLOCK_N,
            **FUSED,
        )
    return kept_indptr, labels, kept


def masked_top_k(heads: Heads, masks: Masks, temperature: float, k: int) -> tuple[Tensor, Tensor]:
    """See ``kernels.masked_scores.masked_top_k``.

    Raises:
        NotImplementedError: k above 128.
    """
    if k > TOP_BLOCKS_K[-1]:
        raise NotImplementedError(
            f"masked_top_k in Triton keeps at most {TOP_BLOCKS_K[-1]}, got k = {k}; "
            "KERNEL_IMPL=torch has no such bound"
        )
    batch = entries(masks)
    scores = scored(batch, heads, temperature, sigmoid=True)
    return _best(batch, scores, k)


def _best(batch: Batch, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (batch.num_products, k)
    if batch.num_products == 0 or batch.num_entries == 0:
        labels = torch.full(shape, -1, dtype=torch.int64, device=scores.device)
        return labels, torch.zeros(shape, dtype=torch.float32, device=scores.device)
    labels = torch.empty(shape, dtype=torch.int64, device=scores.device)
    best = torch.empty(shape, dtype=torch.float32, device=scores.device)
    block_k = next(size for size in TOP_BLOCKS_K if size >= k)
    top_k_kernel[(batch.num_products,)](
        scores,
        *batch.tables,
        labels,
        best,
        k,
        batch.num_entries,
        batch.num_masks,
        BLOCK_K=block_k,
        BLOCK_N=TOP_BLOCK_N,
        **FUSED,
    )
    return labels, best
