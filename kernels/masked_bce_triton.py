"""``masked_bce`` forward and backward as Triton kernels: O(N + touched rows x D) memory."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels._bce_kernels_triton import (
    entry_owners_kernel,
    grad_features_gather_kernel,
    grad_features_grouped_kernel,
    grad_weight_kernel,
    loss_kernel,
    mark_kernel,
)
from kernels._inputs import Heads, Masks
from kernels._logits_triton import Batch, entries, rows_in_place, scored, slope_dot_options
from kernels._rows_triton import FUSED, product_blocks
from kernels._targets import POSITIVE, SAMPLED_NEGATIVE, Targets

__all__ = ["masked_bce_backward", "masked_bce_forward"]

BLOCK_N = 256
BLOCK_P = 64
GRAD_BLOCK_N = 16
GRAD_BLOCK_D = 128
# From this mean number of products a mask row on, gathered rows are worth sharing.
_SHARED_GROUP = 4
GROUPED_BLOCK_M = 16
GROUPED_BLOCK_N = 32
GROUPED_BLOCK_D = 64
# Programs that take touched labels in turn: several waves of a large GPU.
_WEIGHT_PROGRAMS = 4_096


def masked_bce_forward(
    heads: Heads, masks: Masks, temperature: float, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Losses [B] and, for the backward, the slope of each entry's loss by its logit, [N]."""
    batch = entries(masks)
    values = scored(batch, heads, temperature, sigmoid=False)
    losses = values.new_zeros(batch.num_products)
    if batch.num_products == 0 or batch.num_entries == 0:
        return losses, values
    num_labels = len(heads.weight)
    flags = torch.zeros_like(values, dtype=torch.int8)
    if targets.negative_indptr is not None and targets.negative_indices is not None:
        listed = (targets.negative_indptr, targets.negative_indices)
        _mark(batch, flags, *listed, num_labels, SAMPLED_NEGATIVE)
    # After the negatives: a label that is listed as both is a positive.
    _mark(batch, flags, targets.positive_indptr, targets.positive_indices, num_labels, POSITIVE)
    positive_weight = targets.positive_weight
    loss_kernel[(batch.num_products,)](
        *batch.tables,
        flags,
        values if positive_weight is None else positive_weight.contiguous(),
        _weights(targets.negative_weight, batch, values),
        values,
        losses,
        batch.num_entries,
        batch.num_masks,
        1.0 / temperature,
        targets.label_smoothing,
        targets.smoothing_prior,
        targets.bootstrap,
        HAS_POSITIVE_WEIGHT=positive_weight is not None,
        HAS_NEGATIVES=targets.negative_indptr is not None,
        BLOCK_N=BLOCK_N,
        **FUSED,
    )
    return losses, values


def _weights(negative_weight: Tensor | None, batch: Batch, values: Tensor) -> Tensor:
    if negative_weight is None:
        return values.new_ones(batch.num_products)
    return negative_weight.contiguous()


def _mark(
    batch: Batch,
    flags: Tensor,
    listed_indptr: Tensor,
    listed_indices: Tensor,
    num_labels: int,
    flag: int,
) -> None:
    if len(listed_indices) == 0:
        return
    mark_kernel[(batch.num_products,)](
        *batch.tables,
        listed_indptr.contiguous(),
        listed_indices.contiguous(),
        flags,
        batch.num_entries,
        batch.num_masks,
        num_labels.bit_length(),
        FLAG=flag,
        BLOCK_P=BLOCK_P,
        **FUSED,
    )


def masked_bce_backward(
    heads: Heads,
    masks: Masks,
    grad_losses: Tensor,
    slopes: Tensor,
    need_features: bool,
    need_heads: bool,
    touched_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of features, weight and bias, and the labels of their rows.

    See ``kernels.masked_bce._backward_op``.
    """
    batch = entries(masks._replace(num_entries=len(slopes)))
    grad_losses = grad_losses.to(torch.float32).contiguous()
    features, weight, bias = rows_in_place(heads.features), rows_in_place(heads.weight), heads.bias
    grad_features = torch.zeros_like(features, memory_format=torch.contiguous_format)
    if need_features and batch.num_products and batch.num_entries:
        _grad_features(batch, grad_losses, slopes, features.dtype, weight, grad_features)
    if not need_heads:
        empty = bias.new_empty(0)
        labels = masks.rows.new_empty(0)
        return grad_features, weight.new_empty(0, weight.shape[1]), empty, labels
    return grad_features, *_grad_heads(
        batch, grad_losses, slopes, features, weight, bias, touched_only
    )


def _grad_features(
    batch: Batch,
    grad_losses: Tensor,
    slopes: Tensor,
    features_dtype: torch.dtype,
    weight: Tensor,
    out: Tensor,
) -> None:
    num_features = weight.shape[1]
    if batch.num_products < _SHARED_GROUP * batch.num_categories:
        grad_features_gather_kernel[(batch.num_products, -(-num_features // GRAD_BLOCK_D))](
            weight,
            *batch.tables,
            slopes,
            grad_losses,
            out,
            weight.stride(0),
            num_features,
            batch.num_entries,
            batch.num_masks,
            BLOCK_N=GRAD_BLOCK_N,
            BLOCK_D=GRAD_BLOCK_D,
            **FUSED,
        )
        return
    dtype = torch.promote_types(features_dtype, weight.dtype)
    blocks = product_blocks(batch.mask_rows, batch.num_masks, batch.num_categories, GROUPED_BLOCK_M)
    grad_features_grouped_kernel[(blocks.most_blocks, -(-num_features // GROUPED_BLOCK_D))](
        weight,
        batch.mask_indptr,
        batch.mask_indices,
        blocks.rows,
        blocks.order,
        blocks.first,
        blocks.num_blocks,
        batch.indptr,
        slopes,
        grad_losses,
        out,
        weight.stride(0),
        batch.num_products,
        num_features,
        batch.num_entries,
        **slope_dot_options(dtype),
        BLOCK_M=GROUPED_BLOCK_M,
        BLOCK_N=GROUPED_BLOCK_N,
        BLOCK_D=GROUPED_BLOCK_D,
        **FUSED,
    )


def _grad_heads(
    batch: Batch,
    grad_losses: Tensor,
    slopes: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    touched_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight and bias by touched label: each row is summed by one program."""
    num_entries, num_labels = batch.num_entries, len(weight)
    device = weight.device
    if not num_entries or not batch.num_products:
        rows = 0 if touched_only else num_labels
        none = torch.empty(0, dtype=torch.int64, device=device)
        return weight.new_zeros(rows, weight.shape[1]), bias.new_zeros(rows), none
    # Places beyond the batch's entries sort behind every label.
    labels = torch.full((num_entries,), num_labels, dtype=torch.int64, device=device)
    products = torch.zeros(num_entries, dtype=torch.int32, device=device)
    entry_owners_kernel[(batch.num_products,)](
        *batch.tables,
        labels,
        products,
        num_entries,
        batch.num_masks,
        BLOCK_N=BLOCK_N,
        **FUSED,
    )
    # Stable: the sums have one order.
    labels, order = torch.sort(labels, stable=True)
    starts = torch.ones_like(labels)
    starts[1:] = labels[1:] != labels[:-1]
    rank = torch.cumsum(starts, 0) - 1
    is_label = labels < num_labels
    num_touched = (starts * is_label).sum().reshape(1)
    first = torch.full((num_entries + 1,), num_entries, dtype=torch.int64, device=device)
    # The lowest place of each rank.
    places = torch.arange(num_entries, device=device)
    first.scatter_reduce_(0, rank, places, "amin")
    rows = int(num_touched) if touched_only else num_labels
    grad_weight = torch.zeros(rows, weight.shape[1], dtype=weight.dtype, device=device)
    grad_bias = torch.zeros(rows, dtype=bias.dtype, device=device)
    programs = max(1, min(_WEIGHT_PROGRAMS, num_entries))
    # Without features there is a bias all the same.
    grad_weight_kernel[(programs, max(1, -(-weight.shape[1] // GRAD_BLOCK_D)))](
        features,
        order,
        labels,
        products,
        first,
        num_touched,
        slopes,
        grad_losses,
        grad_weight,
        grad_bias,
        features.stride(0),
        weight.shape[1],
        BY_LABEL=not touched_only,
        BLOCK_E=GRAD_BLOCK_N,
        BLOCK_D=GRAD_BLOCK_D,
        **FUSED,
    )
    touched = labels[first[:rows]] if touched_only else labels.new_empty(0)
    return grad_weight, grad_bias, touched
