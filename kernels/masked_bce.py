"""Label-masked binary cross-entropy, forward and backward."""

from __future__ import annotations

from typing import Any, Literal, cast

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
    smoothing_prior: float = 0.5,
    positive_weight: Tensor | None = None,
    bootstrap: float = 1.0,
    negative_indptr: Tensor | None = None,
    negative_indices: Tensor | None = None,
    negative_weight: Tensor | None = None,
    sparse_grad: bool = False,
    num_entries: int | None = None,
    num_categories: int | None = None,
) -> Tensor:
    """Binary cross-entropy over the labels that are relevant to each product.

    For product i with ``z = (features @ weight.T + bias) / temperature`` and ``q = sigmoid(z)``,
    the sum over its relevant labels j of::

        beta * f_ij * (-w_j * y_ij * log(q_ij) - (1 - y_ij) * log(1 - q_ij))
        - (1 - beta) * q_ij * log(q_ij)

    computed in float32 (float64 where an input is). With every option at its default this is the
    loss of ave-label-masking, section 4.2. Other labels get neither loss nor gradient. Sums have
    one order: results and gradients are the same on every run.

    Args:
        features: [B, D], float32|float16|bfloat16 (float64 for checks).
        weight: [L, D], bias: [L], likewise; dtypes may differ.
        mask_indptr: [C + 1], int64; mask_indices: [nnz], int64, strictly increasing in a row.
        mask_rows: [B], int64, below C; negative: no labels, so no loss.
        positive_indptr: [B + 1], int64; positive_indices: [P], int64: each product's positive
            label rows, in any order. Those that are not relevant are ignored, repeats count once.
        temperature: divides the logits (dhpc-amazon, equation 10).
        reduction: "mean" over all B products (of none: 0), "sum", or "none" for [B].
        label_smoothing: s in [0, 1); smoothing_prior: u in [0, 1]: ``y`` becomes
            ``(1 - s) * y + s * u`` (dhpc-amazon, equation 9).
        positive_weight: w, [L], floating; None: 1.
        bootstrap: beta in [0, 1] (dhpc-amazon, equation 6); 1: no bootstrap term. The gradient
            runs through q.
        negative_indptr, negative_indices: sampled negatives, like the positives: f is 1 for
            positives, ``negative_weight`` for these and 0 for all others (dhpc-amazon, equation
            8). None: every relevant label counts, f = 1.
        negative_weight: [B], floating: equation 8's N_neg / (sigma * N) of each product; None: 1.
        sparse_grad: give the weight and the bias sparse gradients, of touched rows only, for
            ``torch.optim.SparseAdam`` or ``Adagrad``. Not under torch.compile.
        num_entries, num_categories: as in ``kernels.masked_scores``.

    Returns:
        A scalar or [B], float32 (float64).

    Raises:
        ValueError: wrong shape, dtype, device or option.
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
    check_bound("num_entries", num_entries)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is mean, sum or none, got {reduction!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    for name, share in (("smoothing_prior", smoothing_prior), ("bootstrap", bootstrap)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {share}")
    if positive_weight is not None:
        check_per_label("positive_weight", positive_weight, weight)
    _check_negatives(features, negative_indptr, negative_indices, negative_weight)
    losses = cast(
        Tensor,
        torch.ops.sortiment.masked_bce(
            features,
            weight,
            bias,
            mask_indptr,
            mask_indices,
            mask_rows,
            positive_indptr,
            positive_indices,
            negative_indptr,
            negative_indices,
            negative_weight,
            positive_weight,
            temperature,
            label_smoothing,
            smoothing_prior,
            bootstrap,
            sparse_grad,
            num_entries,
            num_categories,
        )[0],
    )
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(1, len(losses))


def _check_negatives(
    features: Tensor,
    negative_indptr: Tensor | None,
    negative_indices: Tensor | None,
    negative_weight: Tensor | None,
) -> None:
    if (negative_indptr is None) != (negative_indices is None):
        raise ValueError("negative_indptr and negative_indices belong together")
    if negative_indptr is None or negative_indices is None:
        if negative_weight is not None:
            raise ValueError("negative_weight is for sampled negatives: give negative_indptr too")
        return
    check_index("negative_indptr", negative_indptr, len(features) + 1, features.device)
    check_index("negative_indices", negative_indices, None, features.device)
    if negative_weight is not None and (
        negative_weight.shape != features.shape[:1]
        or not negative_weight.is_floating_point()
        or negative_weight.device != features.device
    ):
        raise ValueError(
            f"negative_weight must be floating [{len(features)}] on {features.device}, got "
            f"{negative_weight.dtype} {list(negative_weight.shape)} on {negative_weight.device}"
        )


# The op as torch sees it: losses, and the slope of each entry's loss by its logit for the backward.


@torch.library.custom_op("sortiment::masked_bce", mutates_args=())
def _bce_op(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    positive_indptr: Tensor,
    positive_indices: Tensor,
    negative_indptr: Tensor | None,
    negative_indices: Tensor | None,
    negative_weight: Tensor | None,
    positive_weight: Tensor | None,
    temperature: float,
    label_smoothing: float,
    smoothing_prior: float,
    bootstrap: float,
    sparse_grad: bool,
    num_entries: int | None,
    num_categories: int | None,
) -> tuple[Tensor, Tensor]:
    run = implementation("masked_bce_forward", features.device, features.dtype, weight.dtype)
    result: tuple[Tensor, Tensor] = run(
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        positive_indptr,
        positive_indices,
        negative_indptr,
        negative_indices,
        negative_weight,
        positive_weight,
        temperature,
        label_smoothing,
        smoothing_prior,
        bootstrap,
        num_entries,
        num_categories,
    )
    return result


@_bce_op.register_fake
def _(features: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    num_entries: int | None = rest[-2]
    size = torch.library.get_ctx().new_dynamic_size() if num_entries is None else num_entries
    dtype = _loss_dtype(features, weight, bias)
    return (
        features.new_empty(len(features), dtype=dtype),
        features.new_empty((size,), dtype=dtype),
    )


@torch.library.custom_op("sortiment::masked_bce_backward", mutates_args=())
def _backward_op(
    grad_losses: Tensor,
    slopes: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    need_features: bool,
    need_heads: bool,
    touched_only: bool,
    num_categories: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the features [B, D], of weight and bias, and the label of each of their rows.

    Weight and bias have L rows (and no labels are returned), or a row for each touched label where
    ``touched_only``; none where they are not needed. Features not needed: zeros.
    """
    run = implementation("masked_bce_backward", features.device, features.dtype, weight.dtype)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = run(
        grad_losses,
        slopes,
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        need_features,
        need_heads,
        touched_only,
        num_categories,
    )
    return result


@_backward_op.register_fake
def _(
    grad_losses: Tensor,
    slopes: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    need_features: bool,
    need_heads: bool,
    touched_only: bool,
    num_categories: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows: int | torch.SymInt = len(weight) if need_heads else 0
    labels: int | torch.SymInt = 0
    if touched_only and need_heads:
        rows = labels = torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty_like(features, memory_format=torch.contiguous_format),
        weight.new_empty((rows, weight.shape[1])),
        bias.new_empty((rows,)),
        mask_rows.new_empty((labels,)),
    )


def _loss_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, weight, bias, mask_indptr, mask_indices, mask_rows = inputs[:6]
    ctx.save_for_backward(output[1], features, weight, bias, mask_indptr, mask_indices, mask_rows)
    ctx.num_inputs = len(inputs)
    ctx.sparse_grad, _, ctx.num_categories = inputs[-3:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_losses: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    none: tuple[Any, ...] = (None,) * ctx.num_inputs
    if grad_losses is None:
        return none
    slopes, features, weight, bias, mask_indptr, mask_indices, mask_rows = ctx.saved_tensors
    need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
    grad_features, grad_weight, grad_bias, labels = torch.ops.sortiment.masked_bce_backward(
        grad_losses,
        slopes,
        features,
        weight,
        bias,
        mask_indptr,
        mask_indices,
        mask_rows,
        need_features,
        need_weight or need_bias,
        ctx.sparse_grad,
        ctx.num_categories,
    )
    if ctx.sparse_grad and (need_weight or need_bias):
        # Touched labels are distinct and in order: nothing is left to coalesce.
        grad_weight, grad_bias = (
            torch.sparse_coo_tensor(
                labels[None], rows, head.shape, check_invariants=False, is_coalesced=True
            )
            for rows, head in ((grad_weight, weight), (grad_bias, bias))
        )
    return (
        grad_features if need_features else None,
        grad_weight if need_weight else None,
        grad_bias if need_bias else None,
        *none[3:],
    )


_bce_op.register_autograd(_backward, setup_context=_setup_context)
