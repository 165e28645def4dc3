"""Logits or scores of every relevant label, by the variant that fits: what all Triton ops share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from kernels._dispatch import is_interpreted
from kernels._inputs import Heads, Masks
from kernels._rows_triton import FUSED, entry_indptr, product_blocks
from kernels._score_kernels_triton import dense_kernel, gather_kernel, grouped_kernel
from kernels._variants import Problem, Tiles, Variant, choose, tiles

__all__ = [
    "Batch",
    "dot_options",
    "entries",
    "force_variant",
    "rows_in_place",
    "scored",
    "taken_variant",
]

# Programs a GPU should have at hand before products are worth splitting no further.
_ENOUGH_PROGRAMS = 1_024
_MOST_SPLITS = 64

_TL_DTYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}

_forced: dict[str, Variant] = {}
_taken: dict[str, Variant] = {}


def force_variant(variant: Variant | None) -> None:
    """For tests and benchmarks: every op by this variant, or by choice again."""
    _forced.clear()
    if variant is not None:
        _forced["variant"] = variant


def taken_variant() -> Variant | None:
    """The variant of the last call, for benchmarks; None: there was none."""
    return _taken.get("variant")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's entries and what the host knows of them.

    Attributes:
        indptr: [B + 1], int64.
        num_entries: N, or a bound on it.
        num_categories: distinct mask rows, or a bound.
    """

    mask_indptr: Tensor
    mask_indices: Tensor
    mask_rows: Tensor
    indptr: Tensor
    num_entries: int
    num_categories: int

    @property
    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What most kernels read to find a product's entries, in the order that they take."""
        return self.mask_indptr, self.mask_indices, self.mask_rows, self.indptr

    @property
    def num_products(self) -> int:
        """B."""
        return len(self.mask_rows)

    @property
    def num_masks(self) -> int:
        """C."""
        return len(self.mask_indptr) - 1


def entries(masks: Masks) -> Batch:
    """Lay out a batch's entries; waits for the device only where ``num_entries`` is not given."""
    mask_indptr, mask_indices, mask_rows = (table.contiguous() for table in masks[:3])
    indptr = entry_indptr(mask_indptr, mask_rows)
    num_entries = int(indptr[-1]) if masks.num_entries is None else masks.num_entries
    most = min(len(mask_rows), len(mask_indptr) - 1)
    if masks.num_categories is not None:
        most = min(most, max(1, masks.num_categories))
    return Batch(mask_indptr, mask_indices, mask_rows, indptr, num_entries, most)


def dot_options(dtype: torch.dtype) -> dict[str, Any]:
    """How a kernel multiplies features and weights of ``dtype``: its constants by name.

    float32 as torch's own products would be, or better: in three tf32 products, or in one where
    torch is allowed that. Triton's interpreter cannot multiply bfloat16; float32 holds it exactly.
    """
    is_exact = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"
    if dtype == torch.bfloat16 and is_interpreted():
        dtype = torch.float32
    return {"PRECISION": "tf32x3" if is_exact else "tf32", "DOT_DTYPE": _TL_DTYPES[dtype]}


def slope_dot_options(dtype: torch.dtype) -> dict[str, Any]:
    """Likewise of slopes and weights of ``dtype``.

    A slope times the gradient of a scaled loss goes beyond float16; tf32 has as many digits.
    """
    if dtype == torch.float16:
        return {"PRECISION": "tf32", "DOT_DTYPE": tl.float32}
    return dot_options(dtype)


def rows_in_place(matrix: Tensor) -> Tensor:
    """A matrix whose rows the kernels can read: itself, where their elements follow each other."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def scored(batch: Batch, heads: Heads, temperature: float, *, sigmoid: bool) -> Tensor:
    """``(features @ weight.T + bias) / T`` of every entry, [num_entries], float32.

    Through a sigmoid where ``sigmoid``. Places beyond the batch's entries are zero.
    """
    features, weight, bias = heads
    out = torch.zeros(batch.num_entries, dtype=torch.float32, device=features.device)
    if batch.num_products == 0 or batch.num_entries == 0:
        return out
    # Both in one dtype: the narrower is widened, features here and weights as they are read.
    features = features.to(torch.promote_types(features.dtype, weight.dtype)).contiguous()
    weight, bias = rows_in_place(weight), bias.contiguous()
    problem = Problem(
        num_products=batch.num_products,
        num_features=features.shape[1],
        num_labels=len(weight),
        num_entries=batch.num_entries,
        num_categories=batch.num_categories,
        element_bytes=features.element_size(),
    )
    launch = _Launch(batch, problem, features, weight, bias, out, 1.0 / temperature, sigmoid)
    variant = _taken["variant"] = _forced.get("variant") or choose(problem)
    {"dense": launch.dense, "gather": launch.gather, "grouped": launch.grouped}[variant]()
    return out


def _splits(num_programs: int, batch: Batch, block_n: int) -> int:
    """Programs that share the labels of a product, where products alone are too few."""
    mean_labels = batch.num_entries // max(1, batch.num_products)
    wanted = -(-_ENOUGH_PROGRAMS // max(1, num_programs))
    return max(1, min(wanted, -(-mean_labels // block_n), _MOST_SPLITS))


@dataclass(frozen=True, slots=True)
class _Launch:
    """What the kernels of all variants are given."""

    batch: Batch
    problem: Problem
    features: Tensor
    weight: Tensor
    bias: Tensor
    out: Tensor
    inverse_temperature: float
    sigmoid: bool

    def gather(self) -> None:
        batch, tile = self.batch, tiles("gather", self.problem)
        grid = (batch.num_products, _splits(batch.num_products, batch, tile.block_n))
        gather_kernel[grid](
            self.features,
            self.weight,
            self.bias,
            *batch.tables,
            self.out,
            self.features.stride(0),
            self.weight.stride(0),
            self.problem.num_features,
            batch.num_entries,
            batch.num_masks,
            self.inverse_temperature,
            **self._constants(tile),
        )

    def grouped(self) -> None:
        batch, tile = self.batch, tiles("grouped", self.problem)
        blocks = product_blocks(
            batch.mask_rows, batch.num_masks, batch.num_categories, tile.block_m
        )
        grid = (blocks.most_blocks, _splits(blocks.most_blocks, batch, tile.block_n))
        grouped_kernel[grid](
            self.features,
            self.weight,
            self.bias,
            batch.mask_indptr,
            batch.mask_indices,
            blocks.rows,
            blocks.order,
            blocks.first,
            blocks.num_blocks,
            batch.indptr,
            self.out,
            self.features.stride(0),
            self.weight.stride(0),
            batch.num_products,
            self.problem.num_features,
            batch.num_entries,
            self.inverse_temperature,
            **self._dot_constants(tile),
        )

    def dense(self) -> None:
        batch, tile = self.batch, tiles("dense", self.problem)
        num_labels = self.problem.num_labels
        grid = (-(-num_labels // tile.block_n), -(-batch.num_products // tile.block_m))
        dense_kernel[grid](
            self.features,
            self.weight,
            self.bias,
            *batch.tables,
            self.out,
            self.features.stride(0),
            self.weight.stride(0),
            batch.num_products,
            self.problem.num_features,
            num_labels,
            batch.num_entries,
            batch.num_masks,
            num_labels.bit_length(),
            self.inverse_temperature,
            **self._dot_constants(tile),
        )

    def _constants(self, tile: Tiles) -> dict[str, Any]:
        return {
            "SIGMOID": self.sigmoid,
            "BLOCK_N": tile.block_n,
            "BLOCK_D": tile.block_d,
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
            **FUSED,
        }

    def _dot_constants(self, tile: Tiles) -> dict[str, Any]:
        """Those of the variants that multiply blocks."""
        dot = dot_options(self.features.dtype)
        return self._constants(tile) | dot | {"BLOCK_M": tile.block_m}
