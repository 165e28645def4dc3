"""Label-masked binary cross-entropy, forward and backward."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from kernels._checks import (
    check_batch,
    check_heads,
    check_index,
    check_per_label,
    check_temperature,
)
from kernels._inputs import define, implementation_for, records, without_autocast
from kernels._targets import Targets

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
    check_batch(mask_indptr, mask_indices, mask_rows, num_entries, features)
    check_index("positive_indptr", positive_indptr, len(features) + 1, features.device)
    check_index("positive_indices", positive_indices, None, features.device)
    check_temperature(temperature)
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
            num_entries,
            num_categories,
            temperature,
            positive_indptr,
            positive_indices,
            negative_indptr,
            negative_indices,
            negative_weight,
            positive_weight,
            label_smoothing,
            smoothing_prior,
            bootstrap,
            sparse_grad,
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


def _run_forward(*given: Any) -> tuple[Tensor, Tensor]:
    """Losses, and the slope of each entry's loss by its logit for the backward."""
    heads, masks, (temperature, *targets, _) = records(given)
    run = implementation_for("masked_bce_forward", heads)
    with without_autocast(heads):
        result: tuple[Tensor, Tensor] = run(heads, masks, temperature, Targets(*targets))
    return result


_bce_op = define(
    "masked_bce",
    "float temperature, Tensor positive_indptr, Tensor positive_indices, Tensor? negative_indptr, "
    "Tensor? negative_indices, Tensor? negative_weight, Tensor? positive_weight, "
    "float label_smoothing, float smoothing_prior, float bootstrap, bool sparse_grad",
    "(Tensor, Tensor)",
    _run_forward,
)


@_bce_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    heads, masks, _ = records(given)
    size: int | torch.SymInt | None = masks.num_entries
    if size is None:
        size = torch.library.get_ctx().new_dynamic_size()
    losses = heads.features.new_empty(len(heads.features), dtype=heads.compute_dtype)
    return losses, losses.new_empty((size,))


# Gradients of the features [B, D], of weight and bias, and the label of each of their rows. Weight
# and bias have L rows (and no labels are returned), or a row for each touched label where
# ``touched_only``; none where they are not needed. Features not needed: zeros.
_backward_op = define(
    "masked_bce_backward",
    "Tensor grad_losses, Tensor slopes, bool need_features, bool need_heads, bool touched_only",
    "(Tensor, Tensor, Tensor, Tensor)",
)


@_backward_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    heads, masks, (_, _, _, need_heads, touched_only) = records(given)
    features, weight, bias = heads
    rows: int | torch.SymInt = len(weight) if need_heads else 0
    labels: int | torch.SymInt = 0
    if touched_only and need_heads:
        rows = labels = torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty_like(features, memory_format=torch.contiguous_format),
        weight.new_empty((rows, weight.shape[1])),
        bias.new_empty((rows,)),
        masks.rows.new_empty((labels,)),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:6])
    ctx.num_inputs = len(inputs)
    ctx.known = inputs[6:8]
    ctx.sparse_grad = inputs[-1]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_losses: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    none: tuple[Any, ...] = (None,) * ctx.num_inputs
    if grad_losses is None:
        return none
    slopes, *tensors = ctx.saved_tensors
    _, weight, bias = tensors[:3]
    need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
    grad_features, grad_weight, grad_bias, labels = torch.ops.sortiment.masked_bce_backward(
        *tensors,
        *ctx.known,
        grad_losses,
        slopes,
        need_features,
        need_weight or need_bias,
        ctx.sparse_grad,
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
