"""Sigmoid scores of the labels that are relevant to each product, and of no others.

Shapes: B products, D features, L labels, C mask rows (categories), nnz entries of the mask table,
N = sum over products of the labels relevant to them.

The three functions share their first six arguments and three keywords:

    features: [B, D], float32|float16|bfloat16 (float64 for checks).
    weight: [L, D], bias: [L], likewise; their dtypes may differ from the features'.
    mask_indptr: [C + 1], int64; mask_indices: [nnz], int64: the relevant label rows of each mask
        row, strictly increasing within it (``check_masks`` proves a table once).
    mask_rows: [B], int64, each product's mask row, below C; negative: no labels.
    temperature: divides the logits (calibration; dhpc-amazon, equation 10); positive.
    num_entries: N or more, where the caller knows: then nothing waits for the device, and the call
        can be captured in a CUDA graph.
    num_categories: distinct ``mask_rows``, where the caller knows: a better choice of kernel.

They accumulate and score in float32 (float64 where an input is), never hold a B x L tensor, and
are not differentiable (``masked_bce`` is, for training). B, C, L, nnz or N of 0 are allowed. Sizes
of 2^31 and more are, too, but for B, D, L, C and one mask row, which must stay below it.
They raise ValueError for a wrong shape, dtype, device, temperature, k or bound, and
NotImplementedError where ``KERNEL_IMPL`` names what cannot run. A ``mask_rows`` value of C or more
raises IndexError on a CPU; a GPU would have to be waited for, and there it means no labels. So
does a ``num_entries`` below N: ValueError on a CPU; on a GPU entries beyond it are left out.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from kernels._checks import (
    check_bound,
    check_heads,
    check_index,
    check_per_label,
    check_temperature,
)
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
    num_entries: int | None = None,
    num_categories: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Score every relevant label.

    Equals ``sigmoid((features @ weight.T + bias) / temperature)`` at the relevant labels.

    Returns:
        indptr: [B + 1], int64: product i owns entries ``indptr[i]:indptr[i + 1]``.
        scores: [N], float32, in the order of the mask row's labels; [num_entries] where that is
        given, 0 from N on.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries)
    return cast(
        tuple[Tensor, Tensor],
        torch.ops.sortiment.masked_scores(
            features.detach(),
            weight.detach(),
            bias.detach(),
            mask_indptr,
            mask_indices,
            mask_rows,
            temperature,
            num_entries,
            num_categories,
        ),
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
    num_entries: int | None = None,
    num_categories: int | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The relevant labels whose score is at or above their threshold, compacted.

    Args:
        threshold: one for all, or [L], floating, one a label; compared in float32.
        padded: return ``num_entries`` places whatever is kept, so that nothing waits for the
            device; label -1 and score 0 from ``indptr[-1]`` on. Needs ``num_entries``.

    Returns:
        indptr: [B + 1], int64; label_rows: [M], int64, increasing within a product; scores: [M],
        float32.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries)
    if isinstance(threshold, Tensor):
        check_per_label("threshold", threshold, weight)
    if padded and num_entries is None:
        raise ValueError("padded needs num_entries: how many places to return")
    per_label = isinstance(threshold, Tensor)
    return cast(
        tuple[Tensor, Tensor, Tensor],
        torch.ops.sortiment.masked_scores_above(
            features.detach(),
            weight.detach(),
            bias.detach(),
            mask_indptr,
            mask_indices,
            mask_rows,
            0.0 if per_label else threshold,
            threshold.detach() if isinstance(threshold, Tensor) else None,
            temperature,
            num_entries,
            num_categories,
            padded,
        ),
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
    num_entries: int | None = None,
    num_categories: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best relevant labels of each product, best first; equal scores: lowest label row.

    Args:
        k: at least 1.

    Returns:
        label_rows: [B, k], int64, -1 where a product has fewer; scores: [B, k], float32, 0 there.

    Raises:
        NotImplementedError: also for k above 128 with ``KERNEL_IMPL=triton``.
    """
    _check(features, weight, bias, mask_indptr, mask_indices, mask_rows, temperature, num_entries)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return cast(
        tuple[Tensor, Tensor],
        torch.ops.sortiment.masked_top_k(
            features.detach(),
            weight.detach(),
            bias.detach(),
            mask_indptr,
            mask_indices,
            mask_rows,
            k,
            temperature,
            num_entries,
            num_categories,
        ),
    )


def _check(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    temperature: float,
    num_entries: int | None,
) -> None:
    check_heads(features, weight, bias)
    check_index("mask_indptr", mask_indptr, None, features.device)
    if len(mask_indptr) == 0:
        raise ValueError("mask_indptr must have C + 1 elements, got none")
    check_index("mask_indices", mask_indices, None, features.device)
    check_index("mask_rows", mask_rows, len(features), features.device)
    check_temperature(temperature)
    check_bound("num_entries", num_entries)


# The ops as torch sees them: opaque to torch.compile, which plans around them by the fakes below.


@torch.library.custom_op("sortiment::masked_scores", mutates_args=())
def _scores_op(
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
    run = implementation("masked_scores", features.device, features.dtype, weight.dtype)
    result: tuple[Tensor, Tensor] = run(
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        temperature,
        num_entries,
        num_categories,
    )
    return result


@_scores_op.register_fake
def _(
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
    size = torch.library.get_ctx().new_dynamic_size() if num_entries is None else num_entries
    return mask_indptr.new_empty(len(features) + 1), _new_scores(features, weight, bias, (size,))


@torch.library.custom_op("sortiment::masked_scores_above", mutates_args=())
def _above_op(
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
    run = implementation("masked_scores_above", features.device, features.dtype, weight.dtype)
    result: tuple[Tensor, Tensor, Tensor] = run(
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        threshold,
        thresholds,
        temperature,
        num_entries,
        num_categories,
        padded,
    )
    return result


@_above_op.register_fake
def _(
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
    if padded and num_entries is not None:
        size: int | torch.SymInt = num_entries
    else:
        size = torch.library.get_ctx().new_dynamic_size()
    scores = _new_scores(features, weight, bias, (size,))
    return mask_indptr.new_empty(len(features) + 1), mask_indices.new_empty(size), scores


@torch.library.custom_op("sortiment::masked_top_k", mutates_args=())
def _top_k_op(
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
    run = implementation("masked_top_k", features.device, features.dtype, weight.dtype)
    result: tuple[Tensor, Tensor] = run(
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        k,
        temperature,
        num_entries,
        num_categories,
    )
    return result


@_top_k_op.register_fake
def _(
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
    shape = (len(features), k)
    return mask_indices.new_empty(shape), _new_scores(features, weight, bias, shape)


def _new_scores(
    features: Tensor, weight: Tensor, bias: Tensor, shape: tuple[int | torch.SymInt, ...]
) -> Tensor:
    is_double = torch.float64 in (features.dtype, weight.dtype, bias.dtype)
    return features.new_empty(shape, dtype=torch.float64 if is_double else torch.float32)
