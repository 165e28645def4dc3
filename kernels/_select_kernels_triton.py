"""From all scores to those that are asked for: above a threshold, or the best k."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["above_kernel", "count_above_kernel", "top_k_kernel"]


@triton.jit
def _above(
    scores_ptr,
    thresholds_ptr,
    threshold,
    p_entry,
    b_label,
    mask_n,
    PER_LABEL: tl.constexpr,
):
    b_score = tl.load(scores_ptr + p_entry, mask=mask_n, other=0.0)
    if PER_LABEL:
        b_threshold = tl.load(thresholds_ptr + b_label, mask=mask_n, other=0.0).to(tl.float32)
        is_above = b_score >= b_threshold
    else:
        is_above = b_score >= threshold
    return b_score, is_above & mask_n


@triton.jit
def count_above_kernel(
    scores_ptr,  # [num_entries], float32
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    thresholds_ptr,  # [L], any float
    counts_ptr,  # [B], int64, out
    threshold,
    num_entries,
    num_masks,
    PER_LABEL: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """How many of each product's scores are at or above their threshold."""
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    has_row = (row >= 0) & (row < num_masks)
    first_label = tl.load(mask_indptr_ptr + row, mask=has_row, other=0)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    b_count = tl.zeros([BLOCK_N], dtype=tl.int32)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        _, is_above = _above(
            scores_ptr, thresholds_ptr, threshold, p_entry, b_label, mask_n, PER_LABEL
        )
        b_count += is_above.to(tl.int32)
    tl.store(counts_ptr + product, tl.sum(b_count, 0).to(tl.int64))


@triton.jit
def above_kernel(
    scores_ptr,  # [num_entries], float32
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    thresholds_ptr,  # [L], any float
    kept_indptr_ptr,  # [B + 1], int64
    labels_ptr,  # [num_kept], int64, out
    kept_ptr,  # [num_kept], float32, out
    threshold,
    num_entries,
    num_kept,
    num_masks,
    PER_LABEL: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Write the labels and scores that ``count_above_kernel`` counted, in order."""
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    if (row < 0) | (row >= num_masks):
        return
    first_label = tl.load(mask_indptr_ptr + row)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    first_kept = tl.load(kept_indptr_ptr + product)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        b_score, is_above = _above(
            scores_ptr, thresholds_ptr, threshold, p_entry, b_label, mask_n, PER_LABEL
        )
        b_above = is_above.to(tl.int32)
        p_kept = first_kept + tl.cumsum(b_above, 0) - 1
        mask_kept = is_above & (p_kept < num_kept)
        tl.store(labels_ptr + p_kept, b_label, mask=mask_kept)
        tl.store(kept_ptr + p_kept, b_score, mask=mask_kept)
        first_kept += tl.sum(b_above, 0)


@triton.jit
def top_k_kernel(
    scores_ptr,  # [num_entries], float32, 0 to 1
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    labels_ptr,  # [B, k], int64, out
    best_ptr,  # [B, k], float32, out
    k,
    num_entries,
    num_masks,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The k best of each product, equal scores by label.

    Score and place become one integer key, larger for the better score and then the earlier
    label: a score is not negative, so its bits are in its own order, and no two keys are equal.
    """
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    has_row = (row >= 0) & (row < num_masks)
    first_label = tl.load(mask_indptr_ptr + row, mask=has_row, other=0)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    b_best = tl.full([BLOCK_K], -1, dtype=tl.int64)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_score = tl.load(scores_ptr + p_entry, mask=mask_n, other=0.0)
        b_bits = b_score.to(tl.int32, bitcast=True).to(tl.int64)
        b_key = tl.where(mask_n, (b_bits << 32) | (0x7FFFFFFF - offs_n).to(tl.int64), -1)
        b_both = tl.join(b_best, tl.topk(b_key, BLOCK_K)).reshape(2 * BLOCK_K)
        b_best = tl.topk(b_both, BLOCK_K)
    offs_k = tl.arange(0, BLOCK_K)
    mask_k = offs_k < k
    is_there = b_best >= 0
    b_place = 0x7FFFFFFF - (b_best & 0x7FFFFFFF)
    b_label = tl.load(mask_indices_ptr + first_label + b_place, mask=is_there & mask_k, other=-1)
    b_score = (b_best >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    p_out = product * k + offs_k
    tl.store(labels_ptr + p_out, b_label, mask=mask_k)
    tl.store(best_ptr + p_out, tl.where(is_there, b_score, 0.0), mask=mask_k)
