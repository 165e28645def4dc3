"""Which points are measured where: the grid of a GPU, and the smaller one of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch

from benchmarks.kernels.masks import DRAWS, Draw, MaskTable, paper_masks, shopify_like_masks
from benchmarks.kernels.problems import Point

__all__ = ["GRIDS", "Filters", "Tables", "dtypes_of", "plan"]

Tables: TypeAlias = Mapping[str, Callable[[], MaskTable]]

# Where a file of real masks is given, it stands in this place.
_SHOPIFY_LABELS = 27_675
_WIDE = 3_840
_WIDE_MOST_LABELS_CPU = 27_675
# The point: what the twin must reach over a dense product on a CPU.
_TWIN_POINT = {"num_products": 256, "num_features": 384}

GRIDS = {
    "cuda": "L in {7,979; 27,675; 131,072; 500,000; 1,000,000}, D in {384; 768; 3,840}, "
    "B in {1; 32; 256; 1,024; 4,096}, fp32, bf16, fp16",
    "cpu": "reduced for a CPU: L in {7,979; 27,675; 131,072}, D in {384; 768} (3,840 for "
    "L <= 27,675), B in {1; 32; 256}, fp32, bf16",
}


@dataclass(frozen=True, slots=True)
class Filters:
    """Only these; None: all."""

    ops: Sequence[str] | None = None
    dtypes: Sequence[str] | None = None
    labels: Sequence[int] | None = None
    features: Sequence[int] | None = None
    batch: Sequence[int] | None = None
    draws: Sequence[str] | None = None

    def __bool__(self) -> bool:
        return any(
            each is not None
            for each in (
                self.ops,
                self.dtypes,
                self.labels,
                self.features,
                self.batch,
                self.draws,
            )
        )

    def keep(self, point: Point) -> bool:
        """Whether a point is wanted."""
        wanted = (
            (self.ops, point.op),
            (self.dtypes, point.dtype),
            (self.labels, point.num_labels),
            (self.features, point.num_features),
            (self.batch, point.num_products),
            (self.draws, point.draw),
        )
        return all(allowed is None or value in allowed for allowed, value in wanted)


def dtypes_of(device: torch.device, filters: Filters) -> list[str]:
    """The dtypes of a device's grid that are wanted."""
    names = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    return [name for name in names if filters.dtypes is None or name in filters.dtypes]


def plan(
    device: torch.device, filters: Filters, real: MaskTable | None
) -> tuple[list[Point], Tables]:
    """Points in the order to measure, and the mask tables that they name.

    Losses and the issue's CPU point come first, so that a lack of time takes from the grid. Of
    each (L, D, dtype, draw) the smaller batches come first.
    """
    is_gpu = device.type == "cuda"
    shopify = real if real is not None else shopify_like_masks()
    tables: dict[str, Callable[[], MaskTable]] = {shopify.name: lambda: shopify}
    every_label: list[tuple[int, str]] = []
    for num_labels in (7_979, 27_675, 131_072, *((500_000, 1_000_000) if is_gpu else ())):
        if real is not None and num_labels == _SHOPIFY_LABELS:
            every_label.append((real.num_labels, real.name))
            continue
        name = f"synthetic {num_labels}"
        tables[name] = cache(lambda num_labels=num_labels: paper_masks(num_labels))
        every_label.append((num_labels, name))
    points = _losses(is_gpu, every_label)
    if not is_gpu:
        points += [
            Point(
                "masked_scores",
                dtype,
                num_labels=shopify.num_labels,
                draw="uniform",
                masks=shopify.name,
                **_TWIN_POINT,
            )
            for dtype in ("fp32", "bf16")
        ]
    points += _grid(is_gpu, every_label)
    # With real masks the grid holds the twin's point too.
    return [point for point in dict.fromkeys(points) if filters.keep(point)], tables


def _losses(is_gpu: bool, every_label: Sequence[tuple[int, str]]) -> list[Point]:
    draws: tuple[Draw, ...] = ("uniform", "zipf") if is_gpu else ("uniform",)
    return [
        Point("masked_bce", dtype, num_products, 768 if is_gpu else 384, num_labels, draw, masks)
        for num_labels, masks in every_label
        for dtype in ("fp32", "bf16")
        for draw in draws
        for num_products in ((256, 1_024) if is_gpu else (32, 256))
    ]


def _grid(is_gpu: bool, every_label: Sequence[tuple[int, str]]) -> list[Point]:
    return [
        Point("masked_scores", dtype, num_products, num_features, num_labels, draw, masks)
        for num_labels, masks in every_label
        for num_features in (384, 768, _WIDE)
        if is_gpu or num_features < _WIDE or num_labels <= _WIDE_MOST_LABELS_CPU * 1.1
        for dtype in (("fp32", "bf16", "fp16") if is_gpu else ("fp32", "bf16"))
        for draw in DRAWS
        for num_products in (1, 32, 256, *((1_024, 4_096) if is_gpu else ()))
    ]
