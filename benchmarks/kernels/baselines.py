"""What one writes without this project. Index tensors that the forms need are made untimed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from benchmarks.kernels.contenders import Call, Contender
from benchmarks.kernels.problems import Batch

__all__ = ["LOSSES", "SCORES", "dense_loss"]

# Gathered label rows held at once.
_GATHERED_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}
# Shapes are dynamic, but a batch of one, sizes beyond 32-bit indices and dtypes compile anew.
_MOST_COMPILATIONS = 256


def _dense(batch: Batch) -> Call:
    places = batch.owners * batch.point.num_labels + batch.label_rows
    x, heads = batch.features, batch.heads

    def call() -> tuple[Tensor, ...]:
        return (_dense_scores(x, heads.weight, heads.bias, places),)

    return call


def _dense_scores(x: Tensor, weight: Tensor, bias: Tensor, places: Tensor) -> Tensor:
    return torch.sigmoid(linear(x, weight, bias)).flatten().index_select(0, places)


def _compiled(batch: Batch) -> Call:
    places = batch.owners * batch.point.num_labels + batch.label_rows
    x, heads = batch.features, batch.heads
    # Past its limit dynamo would go on without compiling, and say so only in a log.
    dynamo_config.recompile_limit = _MOST_COMPILATIONS
    dynamo_config.fail_on_recompile_limit_hit = True
    run = torch.compile(_dense_scores, dynamic=True)

    def call() -> tuple[Tensor, ...]:
        return (run(x, heads.weight, heads.bias, places),)

    return call


def _gather_bmm(batch: Batch) -> Call:
    x, heads = batch.features, batch.heads
    lengths = batch.indptr.diff()
    most = int(lengths.max()) if len(lengths) else 0
    offsets = torch.arange(most, device=x.device)
    is_label = offsets < lengths[:, None]
    places = (batch.indptr[:-1, None] + offsets).clamp(max=max(0, batch.num_entries - 1))
    padded = batch.label_rows[places] if batch.num_entries else places  # [B, most]
    step = products_at_once(batch)
    # Masks of one length need no picking.
    is_full = bool(is_label.all())

    def call() -> tuple[Tensor, ...]:
        chunks = []
        for start in range(0, len(x), step):
            rows = padded[start : start + step]
            gathered = heads.weight.index_select(0, rows.flatten()).view(*rows.shape, -1)
            logits = torch.bmm(gathered, x[start : start + step, :, None])[..., 0]
            chunks.append(torch.sigmoid(logits + heads.bias[rows]))
        scores = torch.cat(chunks)
        return (scores.flatten() if is_full else scores[is_label],)

    return call


def products_at_once(batch: Batch) -> int:
    """Products whose gathered label rows stay within the bound."""
    lengths = batch.indptr.diff()
    most = int(lengths.max()) if len(lengths) else 0
    row_bytes = batch.point.num_features * batch.features.element_size()
    return max(1, _GATHERED_BYTES[batch.features.device.type] // max(1, most * row_bytes))


def _loop(batch: Batch) -> Call:
    x, heads, device = batch.features, batch.heads, batch.features.device
    members: dict[int, list[int]] = {}
    for product, category in enumerate(batch.categories):
        members.setdefault(category, []).append(product)
    ends = batch.mask_indptr.tolist()
    groups = []
    for category, products in members.items():
        labels = batch.mask_indices[ends[category] : ends[category + 1]]
        owners = torch.tensor(products, device=device)
        offsets = torch.arange(len(labels), device=device)
        groups.append((owners, labels, batch.indptr[owners][:, None] + offsets))
    num_entries = batch.num_entries

    def call() -> tuple[Tensor, ...]:
        out = x.new_empty(num_entries)
        for owners, labels, places in groups:
            rows = heads.weight.index_select(0, labels)
            logits = x.index_select(0, owners) @ rows.t() + heads.bias.index_select(0, labels)
            out[places] = torch.sigmoid(logits)
        return (out,)

    return call


def dense_loss(batch: Batch, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The loss over all labels times the mask, mean over products.

    Mask and targets are made here, by index alone: every batch has others, so each step pays.
    """
    num_labels = batch.point.num_labels
    products = torch.arange(len(x), device=x.device)
    owners = torch.repeat_interleave(
        products, batch.positive_indptr.diff(), output_size=len(batch.positive_indices)
    )
    mask, target = x.new_zeros(2, len(x), num_labels).unbind()
    mask.view(-1).index_fill_(0, batch.owners * num_labels + batch.label_rows, 1)
    target.view(-1).index_fill_(0, owners * num_labels + batch.positive_indices, 1)
    logits = linear(x, weight, bias)
    losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * mask).sum() / max(1, len(x))


def _dense_loss(batch: Batch) -> Call:
    leaves = [
        tensor.detach().requires_grad_()
        for tensor in (batch.features, batch.heads.weight, batch.heads.bias)
    ]
    x, weight, bias = leaves

    def call() -> tuple[Tensor, ...]:
        loss = dense_loss(batch, x, weight, bias)
        return loss.detach(), *torch.autograd.grad(loss, leaves)

    return call


def _cells(batch: Batch) -> int:
    return batch.point.num_products * batch.point.num_labels * batch.features.element_size()


SCORES = (
    Contender("baseline_dense", _dense, bytes_needed=lambda b: 2 * _cells(b), capturable=True),
    Contender("baseline_compile", _compiled, bytes_needed=_cells, capturable=True),
    Contender("baseline_gather_bmm", _gather_bmm, capturable=True),
    Contender("baseline_loop", _loop),
)

LOSSES = (
    # Mask, targets, logits, losses, their product, and two gradients of that size.
    Contender("baseline_dense", _dense_loss, bytes_needed=lambda b: 7 * _cells(b)),
)
