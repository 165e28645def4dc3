"""``masked_bce`` in plain torch: any device, and the oracle of the kernels.

The forward keeps the gradient of every entry's logit, so the backward needs two products a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from kernels._grouping_torch import Grouped, compute_dtype

__all__ = ["masked_bce"]


def masked_bce(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    positive_indptr: Tensor,
    positive_indices: Tensor,
    temperature: float,
    label_smoothing: float,
    positive_weight: Tensor | None,
) -> Tensor:
    """The loss of each product, [B]. See ``kernels.masked_bce.masked_bce``; arguments checked."""
    grouped = Grouped(mask_indptr, mask_indices, mask_rows)
    targets = _targets(grouped, positive_indptr, positive_indices, len(weight))
    losses: Tensor = _MaskedBce.apply(
        features, weight, bias, grouped, targets, temperature, label_smoothing, positive_weight
    )
    return losses


def _targets(
    grouped: Grouped, positive_indptr: Tensor, positive_indices: Tensor, num_labels: int
) -> Tensor:
    """Which entries are positive, [N], bool."""
    products = torch.arange(len(grouped.order), device=grouped.order.device)
    # Entries are sorted by (product, label): one key makes them searchable.
    keys = torch.repeat_interleave(products, grouped.lengths) * num_labels + grouped.label_rows
    targets = torch.zeros_like(keys, dtype=torch.bool)
    if len(keys) == 0:
        return targets
    place = torch.empty_like(grouped.order)
    place[grouped.order] = products
    in_space = (positive_indices >= 0) & (positive_indices < num_labels)
    owners = torch.repeat_interleave(place, positive_indptr.diff())
    wanted = (owners * num_labels + positive_indices)[in_space]
    found = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    targets[found[keys[found] == wanted]] = True
    return targets


class _MaskedBce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        grouped: Grouped,
        targets: Tensor,
        temperature: float,
        label_smoothing: float,
        positive_weight: Tensor | None,
    ) -> Tensor:
        ordered = features.index_select(0, grouped.order)
        logits = grouped.logits(ordered, weight, bias).div_(temperature)
        positive = targets.to(logits.dtype).mul_(1 - label_smoothing).add_(label_smoothing / 2)
        negative = 1 - positive
        if positive_weight is not None:
            positive *= positive_weight.to(logits.dtype).index_select(0, grouped.label_rows)
        losses = -(positive * logsigmoid(logits) + negative * logsigmoid(-logits))
        scores = torch.sigmoid(logits)
        # d loss / d (features @ weight.T + bias), of each entry
        slopes = (negative * scores - positive * (1 - scores)).div_(temperature)
        ctx.save_for_backward(ordered, weight, bias, slopes)
        ctx.features_dtype = features.dtype
        ctx.grouped = grouped
        return _per_product(losses, grouped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        ordered, weight, bias, slopes = ctx.saved_tensors
        grouped: Grouped = ctx.grouped
        need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
        dtype = compute_dtype(ordered, weight, bias)
        by_product = grad_losses.to(dtype).index_select(0, grouped.order)
        slopes = slopes * torch.repeat_interleave(by_product, grouped.lengths)
        ordered = ordered.to(dtype)
        grad_features = torch.zeros_like(ordered) if need_features else None
        grad_weight = torch.zeros_like(weight, dtype=dtype) if need_weight else None
        for group in grouped:
            part = group.of(slopes)  # [count, num_labels]
            products = slice(group.first, group.first + group.count)
            if grad_features is not None:
                gathered = weight.index_select(0, group.labels).to(dtype)
                torch.mm(part, gathered, out=grad_features[products])
            if grad_weight is not None:
                grad_weight.index_add_(0, group.labels, part.t() @ ordered[products])
        if grad_features is not None:
            given = torch.empty_like(grad_features)
            grad_features = given.index_copy_(0, grouped.order, grad_features)
            grad_features = grad_features.to(ctx.features_dtype)
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        grad_bias = None
        if need_bias:
            grad_bias = torch.zeros_like(bias, dtype=dtype)
            grad_bias = grad_bias.index_add_(0, grouped.label_rows, slopes).to(bias.dtype)
        return grad_features, grad_weight, grad_bias, None, None, None, None, None


def _per_product(losses: Tensor, grouped: Grouped) -> Tensor:
    """Sums of each product's entries, [B], in the order in which the products were given."""
    owners = torch.repeat_interleave(grouped.order, grouped.lengths)
    return losses.new_zeros(len(grouped.order)).index_add_(0, owners, losses)
