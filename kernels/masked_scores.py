"""Sigmoid scores of the labels that are relevant to each product, and of no others.

Shapes: B products, D features, L labels, C mask rows (categories), nnz entries of the mask table,
N = sum over products of the labels relevant to them.

The three functions share their first six arguments:

    features: [B, D], float32|float16|bfloat16 (float64 for checks).
    weight: [L, D], bias: [L], likewise; their dtypes may differ from the features'.
    mask_indptr: [C + 1], int64; mask_indices: [nnz], int64: the relevant label rows of each mask
        row, strictly increasing within it (``check_masks`` proves a table once).
    mask_rows: [B], int64, each product's mask row, below C; negative: no labels.

They accumulate and score in float32 (float64 where an input is), never hold a B x L tensor, and
are not differentiable (``masked_bce`` is, for training). B, C, L, nnz or N of 0 are allowed.
They raise ValueError for a wrong shape, dtype, device, temperature or k, IndexError (CPU) for
``mask_rows`` not below C, and NotImplementedError where ``KERNEL_IMPL`` names what cannot run.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from kernels._checks import check_heads, check_index, check_per_label, check_temperature
from kernels._dispatch import implementation

__all__ = ["masked_scores", "masked_scores_above", "masked_top_k"]


def masked_scores(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    *,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Score every relevant label.

    Equals ``sigmoid((features @ weight.T + bias) / temperature)`` at the relevant labels.

    Returns:
        indptr: [B + 1], int64: product i owns entries ``indptr[i]:indptr[i + 1]``.
        scores: [N], float32, in the order of the mask row's labels.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature)
    run = implementation("masked_scores", features.device)
    return cast(
        tuple[Tensor, Tensor],
        run(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature),
    )


def masked_scores_above(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    *,
    threshold: Tensor | float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The relevant labels whose score is at or above their threshold, compacted.

    Args:
        threshold: one for all, or [L], floating, one a label; compared in float32.

    Returns:
        indptr: [B + 1], int64; label_rows: [M], int64, increasing within a product; scores: [M],
        float32.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature)
    if isinstance(threshold, Tensor):
        check_per_label("threshold", threshold, weight)
    run = implementation("masked_scores_above", features.device)
    return cast(
        tuple[Tensor, Tensor, Tensor],
        run(features, weight, bias, mask_indptr, mask_indices, mask_rows, threshold, temperature),
    )


def masked_top_k(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    *,
    k: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The k best relevant labels of each product, best first; equal scores: lowest label row.

    Args:
        k: at least 1.

    Returns:
        label_rows: [B, k], int64, -1 where a product has fewer; scores: [B, k], float32, 0 there.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    run = implementation("masked_top_k", features.device)
    return cast(
        tuple[Tensor, Tensor],
        run(features, weight, bias, mask_indptr, mask_indices, mask_rows, k, temperature),
    )


def _check(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    temperature: float,
) -> None:
    check_heads(features, weight, bias)
    check_index("mask_indptr", mask_indptr, None, features.device)
    if len(mask_indptr) == 0:
        raise ValueError("mask_indptr must have C + 1 elements, got none")
    check_index("mask_indices", mask_indices, None, features.device)
    check_index("mask_rows", mask_rows, len(features), features.device)
    check_temperature(temperature)
