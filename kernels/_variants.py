"""Which way to the logits wins for a problem, and with which tiles.

A small model of time: bytes over bandwidth, operations over rate, launches. Its constants are an
H200's data sheet, derated; only their ratios matter for the choice, and those differ little
between the data-centre GPUs of these years. ``benchmarks/kernels`` compares choice and best.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

__all__ = ["VARIANTS", "Problem", "Tiles", "Variant", "choose", "every_tiles", "tiles"]

Variant = Literal["dense", "gather", "grouped"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
# Of a grid's second axis, on which dense has its blocks of products.
_MOST_BLOCKS = 65_535

_DRAM_BYTES_PER_S = 4.0e12
_L2_BYTES_PER_S = 8.0e12
_L2_BYTES = 40e6
_TENSOR_FLOPS = {2: 4.0e14, 4: 0.6e14}  # fp32 as three tf32 products
_FMA_FLOPS = 2.5e13
_LAUNCH_S = 4e-6
# torch.sort of a batch, and the kernel that cuts it into blocks.
_GROUPING_S = 25e-6
_INDEX_BYTES = 8
_NUM_SMS = 132


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What the choice depends on.

    Args:
        num_products: B; num_features: D; num_labels: L; num_entries: N, the batch's relevant
            (product, label) pairs; num_categories: distinct mask rows of the batch, or a bound.
        element_bytes: of a product: 2 or 4.
    """

    num_products: int
    num_features: int
    num_labels: int
    num_entries: int
    num_categories: int
    element_bytes: int

    @property
    def _row_bytes(self) -> int:
        return self.num_features * self.element_bytes

    @property
    def mean_group(self) -> float:
        """Products a distinct mask row."""
        return self.num_products / max(1, self.num_categories)

    def seconds(self, variant: Variant) -> float:
        """The model's time of a variant."""
        return {"dense": self._dense_s, "gather": self._gather_s, "grouped": self._grouped_s}[
            variant
        ]()

    def _reading_s(self, rows: float, touched: float) -> float:
        """Reading ``rows`` label rows of which ``touched`` differ."""
        in_l2 = min(1.0, _L2_BYTES / max(1.0, touched * self._row_bytes))
        missed = touched + (rows - touched) * (1 - in_l2)
        row_bytes = self._row_bytes
        return rows * row_bytes / _L2_BYTES_PER_S + missed * row_bytes / _DRAM_BYTES_PER_S

    def _gather_s(self) -> float:
        touched = min(self.num_entries, self.num_labels)
        flops = 2 * self.num_entries * self.num_features
        return _LAUNCH_S + max(self._reading_s(self.num_entries, touched), flops / _FMA_FLOPS)

    def _grouped_s(self) -> float:
        block_m = tiles("grouped", self).block_m
        blocks = self.num_categories + (self.num_products - self.num_categories) / block_m
        mean_labels = self.num_entries / max(1, self.num_products)
        rows = blocks * mean_labels
        touched = min(self.num_categories * mean_labels, self.num_labels)
        flops = 2 * rows * block_m * self.num_features
        working_s = max(self._reading_s(rows, touched), flops / _TENSOR_FLOPS[self.element_bytes])
        return _LAUNCH_S + _GROUPING_S + working_s

    def _dense_s(self) -> float:
        block_m = tiles("dense", self).block_m
        blocks = -(-self.num_products // block_m)
        if blocks > _MOST_BLOCKS:
            return inf
        cells = blocks * block_m * self.num_labels
        working_s = max(
            self._reading_s(blocks * self.num_labels, self.num_labels),
            2 * cells * self.num_features / _TENSOR_FLOPS[self.element_bytes],
        )
        return _LAUNCH_S + working_s + cells * _INDEX_BYTES / _L2_BYTES_PER_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Tile sizes of a kernel: products, labels and features; warps; loads in flight."""

    block_m: int
    block_n: int
    block_d: int
    num_warps: int
    num_stages: int


def choose(problem: Problem) -> Variant:
    """The variant that the model of time prefers."""
    return min(VARIANTS, key=problem.seconds)


def tiles(variant: Variant, problem: Problem) -> Tiles:
    """Tiles of a variant for a problem: one of ``every_tiles``."""
    narrow, wide = every_tiles(variant, problem.element_bytes)
    if variant == "gather":
        # Few programs of few rows each leave most of the GPU without work.
        return narrow if problem.num_entries < 16 * 4 * _NUM_SMS else wide
    members = problem.num_products if variant == "dense" else problem.mean_group
    return wide if members >= wide.block_m // 2 else narrow


def every_tiles(variant: Variant, element_bytes: int) -> tuple[Tiles, Tiles]:
    """All that ``tiles`` can return: for little work, for much."""
    if variant == "gather":
        return (
            Tiles(block_m=1, block_n=4, block_d=512, num_warps=4, num_stages=2),
            Tiles(block_m=1, block_n=16, block_d=128, num_warps=4, num_stages=2),
        )
    # float32 is multiplied in three parts, which take registers.
    block_m, block_d, num_stages = (64, 64, 3) if element_bytes == 2 else (32, 32, 2)
    return (
        Tiles(block_m=16, block_n=64, block_d=block_d, num_warps=4, num_stages=num_stages),
        Tiles(block_m=block_m, block_n=64, block_d=block_d, num_warps=8, num_stages=num_stages),
    )
