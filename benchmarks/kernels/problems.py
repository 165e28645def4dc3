"""The points of the grid, and their tensors."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.kernels.masks import Draw, MaskTable, draw_categories

__all__ = ["DTYPES", "Batch", "Heads", "Point", "make_batch", "make_heads"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Weight rows repeat after a prime number of them (drawing billions would take minutes); each row
# has its own bias, so that a wrong row shows.
_DISTINCT_ROWS = 4_099
_POSITIVES = 5


@dataclass(frozen=True, slots=True)
class Point:
    """One problem.

    Attributes:
        op: ``masked_scores``, ``masked_bce`` or ``trainer_step``.
        masks: the mask table's name.
    """

    op: str
    dtype: str
    num_products: int
    num_features: int
    num_labels: int
    draw: Draw
    masks: str

    def __str__(self) -> str:
        return (
            f"{self.op} {self.dtype} L={self.num_labels} D={self.num_features} "
            f"B={self.num_products} {self.draw}"
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """weight: [L, D]; bias: [L]; of one dtype."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Batch:
    """A point's tensors.

    Attributes:
        features: [B, D]; mask_*: as in ``kernels.masked_scores``; positive_*: as in
            ``kernels.masked_bce``, five relevant labels a product.
        categories: each product's mask row, known to the host.
    """

    point: Point
    features: Tensor
    heads: Heads
    mask_indptr: Tensor
    mask_indices: Tensor
    mask_rows: Tensor
    positive_indptr: Tensor
    positive_indices: Tensor
    categories: list[int]

    @cached_property
    def indptr(self) -> Tensor:
        """[B + 1], int64, on the device: row pointers of the products' entries."""
        lengths = self.mask_indptr.diff()[self.mask_rows]
        indptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
        torch.cumsum(lengths, 0, out=indptr[1:])
        return indptr

    @cached_property
    def num_entries(self) -> int:
        """N."""
        return int(self.indptr[-1])

    @cached_property
    def num_categories(self) -> int:
        """Distinct mask rows."""
        return len(set(self.categories))

    @cached_property
    def owners(self) -> Tensor:
        """[N], int64: the product of each entry."""
        products = torch.arange(len(self.mask_rows), device=self.mask_rows.device)
        return torch.repeat_interleave(products, self.indptr.diff())

    @cached_property
    def label_rows(self) -> Tensor:
        """[N], int64: the label of each entry."""
        shift = self.mask_indptr[self.mask_rows] - self.indptr[:-1]
        places = torch.arange(self.num_entries, device=shift.device)
        return self.mask_indices[places + shift[self.owners]]

    @cached_property
    def num_touched(self) -> int:
        """Distinct labels that are relevant to a product."""
        return int(torch.unique(self.label_rows).numel())


def make_heads(point: Point, device: torch.device) -> Heads:
    """Random heads whose logits spread about 1 around 0."""
    generator = torch.Generator(device).manual_seed(point.num_features)
    dtype = DTYPES[point.dtype]
    rows = min(_DISTINCT_ROWS, point.num_labels)
    block = torch.randn(rows, point.num_features, generator=generator, device=device)
    block = (block / math.sqrt(max(1, point.num_features))).to(dtype)
    weight = torch.empty(point.num_labels, point.num_features, dtype=dtype, device=device)
    for start in range(0, point.num_labels, rows or 1):
        weight[start : start + rows] = block[: point.num_labels - start]
    bias = torch.randn(point.num_labels, generator=generator, device=device).to(dtype)
    return Heads(weight, bias)


def make_batch(point: Point, heads: Heads, masks: MaskTable, seed: int = 0) -> Batch:
    """Random products of drawn categories, the same on every run."""
    device = heads.weight.device
    generator = torch.Generator(device).manual_seed(point.num_products + seed)
    features = torch.randn(
        point.num_products, point.num_features, generator=generator, device=device
    )
    categories = draw_categories(masks.num_categories, point.num_products, point.draw, seed)
    rng = random.Random(point.num_products + seed)
    ends = masks.indptr.tolist()
    positives, positive_ends = [], [0]
    for category in categories:
        relevant = range(ends[category], ends[category + 1])
        positives += sorted(rng.sample(relevant, min(_POSITIVES, len(relevant))))
        positive_ends.append(len(positives))
    places = torch.tensor(positives, dtype=torch.int64)
    return Batch(
        point=point,
        features=features.to(DTYPES[point.dtype]),
        heads=heads,
        mask_indptr=masks.indptr.to(device),
        mask_indices=masks.indices.to(device),
        mask_rows=torch.tensor(categories, dtype=torch.int64, device=device),
        positive_indptr=torch.tensor(positive_ends, dtype=torch.int64, device=device),
        positive_indices=masks.indices[places].to(device),
        categories=categories,
    )
