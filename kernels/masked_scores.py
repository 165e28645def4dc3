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
        can be captured in a CUDA graph (``masked_scores_above`` with ``padded``).
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

from typing import Any, cast

import torch
from torch import Tensor

from kernels._checks import check_batch, check_heads, check_per_label, check_temperature
from kernels._inputs import Heads, define, records

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
    given = _given(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, num_entries, num_categories
    )
    check_temperature(temperature)
    result = torch.ops.sortiment.masked_scores(*given, temperature)
    return cast(tuple[Tensor, Tensor], result)


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
    given = _given(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, num_entries, num_categories
    )
    check_temperature(temperature)
    # As the op takes them: one for all, or a tensor.
    thresholds: tuple[float, Tensor | None]
    if isinstance(threshold, Tensor):
        check_per_label("threshold", threshold, weight)
        thresholds = 0.0, threshold.detach()
    else:
        thresholds = threshold, None
    if padded and num_entries is None:
        raise ValueError("padded needs num_entries: how many places to return")
    result = torch.ops.sortiment.masked_scores_above(*given, temperature, *thresholds, padded)
    return cast(tuple[Tensor, Tensor, Tensor], result)


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
    given = _given(
        features, weight, bias, mask_indptr, mask_indices, mask_rows, num_entries, num_categories
    )
    check_temperature(temperature)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    result = torch.ops.sortiment.masked_top_k(*given, temperature, k)
    return cast(tuple[Tensor, Tensor], result)


def _given(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    num_entries: int | None,
    num_categories: int | None,
) -> tuple[Tensor | int | None, ...]:
    """What the ops share, checked, as they take it."""
    check_heads(features, weight, bias)
    check_batch(mask_indptr, mask_indices, mask_rows, num_entries, features)
    heads = (features.detach(), weight.detach(), bias.detach())
    return *heads, mask_indptr, mask_indices, mask_rows, num_entries, num_categories


_scores_op = define("masked_scores", "float temperature", "(Tensor, Tensor)")
_above_op = define(
    "masked_scores_above",
    "float temperature, float threshold, Tensor? thresholds, bool padded",
    "(Tensor, Tensor, Tensor)",
)
_top_k_op = define("masked_top_k", "float temperature, SymInt k", "(Tensor, Tensor)")


@_scores_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    heads, masks, _ = records(given)
    size: int | torch.SymInt | None = masks.num_entries
    if size is None:
        size = torch.library.get_ctx().new_dynamic_size()
    return masks.indptr.new_empty(len(heads.features) + 1), _new_scores(heads, (size,))


@_above_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    heads, masks, (_, _, _, padded) = records(given)
    size: int | torch.SymInt | None = masks.num_entries
    if size is None or not padded:
        size = torch.library.get_ctx().new_dynamic_size()
    indptr = masks.indptr.new_empty(len(heads.features) + 1)
    return indptr, masks.indices.new_empty(size), _new_scores(heads, (size,))


@_top_k_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    heads, masks, (_, k) = records(given)
    shape = (len(heads.features), k)
    return masks.indices.new_empty(shape), _new_scores(heads, shape)


def _new_scores(heads: Heads, shape: tuple[int | torch.SymInt, ...]) -> Tensor:
    return heads.features.new_empty(shape, dtype=heads.compute_dtype)
