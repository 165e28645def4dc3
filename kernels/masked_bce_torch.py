"""``masked_bce`` in plain torch: any device, and the oracle of the kernels.

The forward keeps the slope of every entry's loss, so the backward is two products with a sparse
matrix of N values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kernels._entries_torch import Entries, cumulated, entries_of
from kernels._inputs import Heads, Masks
from kernels._logits_torch import entry_logits, sparse_rows
from kernels._targets import POSITIVE, SAMPLED_NEGATIVE, Targets

__all__ = ["masked_bce_backward", "masked_bce_forward"]


def masked_bce_forward(
    heads: Heads, masks: Masks, temperature: float, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Losses [B] and, for the backward, the slope of each entry's loss by its logit, [N]."""
    entries, logits = entry_logits(heads, masks, temperature)
    owners = entries.owners()
    positive, negative = _factors(entries, owners, targets, len(heads.weight), logits.dtype)
    scores, rest = torch.sigmoid(logits), torch.sigmoid(-logits)
    minus_log_score, minus_log_rest = softplus(-logits), softplus(logits)
    losses = positive * minus_log_score + negative * minus_log_rest
    slopes = negative * scores - positive * rest
    bootstrap = targets.bootstrap
    if bootstrap != 1:
        losses = bootstrap * losses + (1 - bootstrap) * scores * minus_log_score
        slopes = bootstrap * slopes + (1 - bootstrap) * scores * rest * (minus_log_score - 1)
    per_product = losses.new_zeros(len(masks.rows)).index_add_(0, owners, losses)
    slopes = slopes / temperature
    if masks.num_entries is not None:
        slopes = torch.cat([slopes, slopes.new_zeros(masks.num_entries - len(slopes))])
    return per_product, slopes


def _factors(
    entries: Entries, owners: Tensor, targets: Targets, num_labels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Of ``-log(q)`` and of ``-log(1 - q)`` in the loss of each entry: [N], [N]."""
    flags = torch.zeros_like(entries.label_rows, dtype=torch.int8)
    if targets.negative_indptr is not None and targets.negative_indices is not None:
        listed = (targets.negative_indptr, targets.negative_indices)
        flags[_listed(entries, owners, *listed, num_labels)] = SAMPLED_NEGATIVE
    # After the negatives: a label that is listed as both is a positive.
    listed = (targets.positive_indptr, targets.positive_indices)
    flags[_listed(entries, owners, *listed, num_labels)] = POSITIVE
    smoothing = targets.label_smoothing
    target = (flags == POSITIVE).to(dtype) * (1 - smoothing) + smoothing * targets.smoothing_prior
    negative = 1 - target
    positive = target
    if targets.positive_weight is not None:
        positive = target * targets.positive_weight.to(dtype).index_select(0, entries.label_rows)
    if targets.negative_indptr is not None:
        factor = (flags != 0).to(dtype)
        if targets.negative_weight is not None:
            of_product = targets.negative_weight.to(dtype).index_select(0, owners)
            factor = torch.where(flags == SAMPLED_NEGATIVE, of_product, factor)
        positive, negative = positive * factor, negative * factor
    return positive, negative


def _listed(
    entries: Entries, owners: Tensor, indptr: Tensor, indices: Tensor, num_labels: int
) -> Tensor:
    """The entries whose labels the products list."""
    # Entries are sorted by (product, label): one key makes them searchable.
    keys = owners * num_labels + entries.label_rows
    lengths = indptr.diff()
    products = torch.arange(len(lengths), device=lengths.device)
    in_space = (indices >= 0) & (indices < num_labels)
    wanted = (torch.repeat_interleave(products, lengths) * num_labels + indices)[in_space]
    if len(keys) == 0:
        return keys
    found = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return found[keys[found] == wanted]


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
    features, weight, bias = heads
    dtype = heads.compute_dtype
    entries = entries_of(masks)
    owners = entries.owners()
    slopes = slopes[: len(owners)] * grad_losses.to(dtype).index_select(0, owners)
    features_dtype, features = features.dtype, features.to(dtype)
    # Entries label by label, each label's in the order of the products.
    labels, order = torch.sort(entries.label_rows, stable=True)
    labels, counts = torch.unique_consecutive(labels, return_counts=True)
    grad_features = torch.zeros_like(features, memory_format=torch.contiguous_format)
    if need_features and len(owners):
        columns = torch.searchsorted(labels, entries.label_rows)
        slopes_by_product = sparse_rows(entries.indptr, columns, slopes, len(labels))
        grad_features = slopes_by_product @ weight.index_select(0, labels).to(dtype)
    grad_features = grad_features.to(features_dtype)
    if not need_heads:
        none = labels[:0]
        return grad_features, weight.new_empty(0, weight.shape[1]), bias.new_empty(0), none
    slopes = slopes.index_select(0, order)
    by_label = sparse_rows(cumulated(counts), owners.index_select(0, order), slopes, len(features))
    grad_weight = (by_label @ features).to(weight.dtype)
    places = torch.arange(len(labels), device=labels.device)
    place_of = torch.repeat_interleave(places, counts, output_size=len(slopes))
    grad_bias = slopes.new_zeros(len(labels)).index_add_(0, place_of, slopes).to(bias.dtype)
    if touched_only:
        return grad_features, grad_weight, grad_bias, labels
    every_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    every_bias = torch.zeros_like(bias, memory_format=torch.contiguous_format)
    every_weight.index_copy_(0, labels, grad_weight)
    every_bias.index_copy_(0, labels, grad_bias)
    return grad_features, every_weight, every_bias, labels[:0]
