"""Label-masked binary cross-entropy, forward and backward."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor

from kernels._checks import check_heads, check_index, check_per_label, check_temperature
from kernels._dispatch import implementation

__all__ = ["Reduction", "masked_bce"]

Reduction = Literal["mean", "sum", "none"]


def masked_bce(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    positive_indptr: Tensor,
    positive_indices: Tensor,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    positive_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy over the labels that are relevant to each product.

    Equals, for product i with z = (features @ weight.T + bias) / temperature, the sum over its
    relevant labels j of ``-(p_j * y_ij * log sigmoid(z_ij) + (1 - y_ij) * log sigmoid(-z_ij))``
    (ave-label-masking, section 4.2, with p = 1), computed in float32 (float64 where an input is).
    Smoothing takes y to ``y * (1 - s) + s / 2``. Other labels get neither loss nor gradient.

    Args:
        features: [B, D], float32|float16|bfloat16 (float64 for checks).
        weight: [L, D], bias: [L], likewise; dtypes may differ.
        mask_indptr: [C + 1], int64; mask_indices: [nnz], int64, strictly increasing in a row.
        mask_rows: [B], int64, below C; negative: no labels, so no loss.
        positive_indptr: [B + 1], int64; positive_indices: [P], int64: each product's positive
            label rows, in any order. Those that are not relevant are ignored, repeats count once.
        reduction: over products: "mean" (all B of them; 0 for an empty batch), "sum", or "none".
        label_smoothing: s, in [0, 1).
        positive_weight: p, [L], floating; no gradient flows into it.

    Returns:
        float32 (float64): a scalar, or [B] for "none". Gradients reach features, weight (dense)
        and bias, in their dtypes, and cannot be differentiated again.

    Raises:
        ValueError: a wrong shape, dtype, device, temperature, reduction or smoothing.
        IndexError: (CPU) ``mask_rows`` not below C.
        NotImplementedError: ``KERNEL_IMPL`` names what cannot run.
    """
    check_heads(features, weight, bias)
    check_index("mask_indptr", mask_indptr, None, features.device)
    if len(mask_indptr) == 0:
        raise ValueError("mask_indptr must have C + 1 elements, got none")
    check_index("mask_indices", mask_indices, None, features.device)
    check_index("mask_rows", mask_rows, len(features), features.device)
    check_index("positive_indptr", positive_indptr, len(features) + 1, features.device)
    check_index("positive_indices", positive_indices, None, features.device)
    check_temperature(temperature)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is mean, sum or none, got {reduction!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if positive_weight is not None:
        check_per_label("positive_weight", positive_weight, weight)
    losses = cast(
        Tensor,
        implementation("masked_bce", features.device)(
            features,
            weight,
            bias,
            mask_indptr,
            mask_indices,
            mask_rows,
            positive_indptr,
            positive_indices,
            temperature,
            label_smoothing,
            positive_weight,
        ),
    )
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(1, len(losses))
