"""No figure without correctness: every contender against float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.kernels import baselines, ours
from benchmarks.kernels.contenders import Contender, is_baseline
from benchmarks.kernels.masks import DRAWS, MaskTable, Shape, taxonomy_masks
from benchmarks.kernels.problems import Batch, Point, make_batch, make_heads

__all__ = ["Reference", "check_all", "reference"]

# Ours accumulate in float32 whatever the inputs are; gradients are rounded to the inputs' dtype.
_SCORE_ERROR = {"fp32": 1e-4, "bf16": 1e-4, "fp16": 1e-4}
_GRADIENT_ERROR = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 2e-3}
# Baselines round every step to the inputs' dtype; cuBLAS may even sum in it.
_BASELINE_ERROR = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}

# (B, D, L, relevant labels of each category): around tiles, primes, one of each, empty rows.
_SHAPES: tuple[tuple[int, int, int, tuple[int, ...]], ...] = (
    (1, 1, 1, (1,)),
    (1, 384, 7_979, (489, 489, 489)),
    (7, 33, 131, (0, 1, 17, 64, 131)),
    (63, 65, 257, (3, 65, 0, 129)),
    (129, 100, 1_009, (16, 489, 31, 33, 100, 1, 257)),
    (40, 768, 4_097, tuple(range(1, 200, 7))),
)
_SPOT_ENTRIES = 512
_SPOT_ROWS = 65_536


def check_all(device: torch.device, dtypes: list[str]) -> list[str]:
    """Every contender of both ops at small and odd shapes; what is wrong, in words."""
    faults = []
    for number, (num_products, num_features, num_labels, lengths) in enumerate(_SHAPES):
        masks = taxonomy_masks("check", num_labels, lengths, Shape(5, 0.5), seed=number)
        for dtype in dtypes:
            for op, contenders in (
                ("masked_scores", (*ours.scores(device), *baselines.SCORES)),
                ("masked_bce", (*ours.LOSSES, *baselines.LOSSES)),
            ):
                draw = DRAWS[number % len(DRAWS)]
                point = Point(op, dtype, num_products, num_features, num_labels, draw, masks.name)
                faults += _faults(point, masks, contenders, device)
    return faults


def _faults(
    point: Point, masks: MaskTable, contenders: tuple[Contender, ...], device: torch.device
) -> list[str]:
    batch = make_batch(point, make_heads(point, device), masks)
    expected = _exact_scores(batch) if point.op == "masked_scores" else _exact_loss(batch)
    faults = []
    for contender in contenders:
        bound = _bound(contender.name, point)
        try:
            with contender.scope():
                results = contender.prepare(batch)()
        except RuntimeError as error:
            faults.append(f"{contender.name} at {point}: {error}")
            continue
        for result, wanted in zip(results, expected, strict=True):
            dense = result.to_dense() if result.is_sparse else result
            difference = _error(dense, wanted)
            if not difference <= bound:
                faults.append(
                    f"{contender.name} at {point}: error {difference:.3g}, allowed {bound}"
                )
    return faults


@dataclass(frozen=True, slots=True)
class Reference:
    """What a result at a point of the grid must show: some of its scores, or its loss.

    Attributes:
        entries: [S], int64, the sampled entries; None for a loss.
        wanted: [S], or a scalar; float64.
    """

    point: Point
    entries: Tensor | None
    wanted: Tensor

    def complaint(self, name: str, results: tuple[Tensor, ...]) -> str | None:
        """What is wrong with a contender's results; None where nothing is."""
        result = results[0] if self.entries is None else results[0][self.entries]
        error, bound = _error(result, self.wanted), _bound(name, self.point)
        return None if error <= bound else f"error {error:.3g}, allowed {bound}"


def reference(batch: Batch) -> Reference:
    """Samples in float64: of a large point all would not fit."""
    if batch.point.op != "masked_scores":
        return Reference(batch.point, None, _streamed_loss(batch))
    generator = torch.Generator().manual_seed(batch.num_entries)
    picked = torch.randint(batch.num_entries, (_SPOT_ENTRIES,), generator=generator)
    picked = picked.to(batch.features.device)
    return Reference(batch.point, picked, torch.sigmoid(_exact_logits(batch, picked)))


def _bound(name: str, point: Point) -> float:
    if is_baseline(name):
        return _BASELINE_ERROR[point.dtype]
    return (_SCORE_ERROR if point.op == "masked_scores" else _GRADIENT_ERROR)[point.dtype]


def _error(result: Tensor, wanted: Tensor) -> float:
    """Largest difference, as a share of the largest wanted value."""
    if result.shape != wanted.shape:
        return float("inf")
    if wanted.numel() == 0:
        return 0.0
    difference = (result.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
    return float(difference) if torch.isfinite(difference) else float("inf")


def _exact_logits(batch: Batch, entries: Tensor) -> Tensor:
    labels, owners = batch.label_rows[entries], batch.owners[entries]
    products = batch.features[owners].double() * batch.heads.weight[labels].double()
    return products.sum(1) + batch.heads.bias[labels].double()


def _exact_scores(batch: Batch) -> tuple[Tensor]:
    entries = torch.arange(batch.num_entries, device=batch.features.device)
    return (torch.sigmoid(_exact_logits(batch, entries)),)


def _exact_loss(batch: Batch) -> tuple[Tensor, ...]:
    leaves = [
        tensor.double().requires_grad_()
        for tensor in (batch.features, batch.heads.weight, batch.heads.bias)
    ]
    x, weight, bias = leaves
    mask = x.new_zeros(len(x), batch.point.num_labels)
    target = torch.zeros_like(mask)
    mask[batch.owners, batch.label_rows] = 1
    target[_positive_owners(batch), batch.positive_indices] = 1
    losses = binary_cross_entropy_with_logits(x @ weight.t() + bias, target, reduction="none")
    loss = (losses * mask).sum() / len(x)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def _streamed_loss(batch: Batch) -> Tensor:
    """The mean loss in float64, some rows at a time: at a large point all would not fit."""
    num_labels = batch.point.num_labels
    keys = batch.owners * num_labels + batch.label_rows
    positive = torch.isin(keys, _positive_owners(batch) * num_labels + batch.positive_indices)
    total = torch.zeros((), dtype=torch.float64, device=keys.device)
    for first in range(0, batch.num_entries, _SPOT_ROWS):
        end = min(first + _SPOT_ROWS, batch.num_entries)
        entries = torch.arange(first, end, device=keys.device)
        logits = _exact_logits(batch, entries)
        total += binary_cross_entropy_with_logits(
            logits, positive[entries].double(), reduction="sum"
        )
    return total / len(batch.features)


def _positive_owners(batch: Batch) -> Tensor:
    products = torch.arange(len(batch.features), device=batch.features.device)
    return torch.repeat_interleave(products, batch.positive_indptr.diff())
