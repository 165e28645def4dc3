"""Mask tables shaped as a taxonomy's, and the categories that a batch of products falls in."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from kernels import check_masks

__all__ = [
    "DRAWS",
    "Draw",
    "MaskTable",
    "Shape",
    "draw_categories",
    "load_masks",
    "paper_masks",
    "shopify_like_masks",
    "taxonomy_masks",
]

Draw = Literal["uniform", "zipf", "equal"]
DRAWS: tuple[Draw, ...] = get_args(Draw)

# Relevant labels a category, and categories, of the taxonomy-like tables.
_PAPER_LABELS = 489
_PAPER_CATEGORIES = 4_000
# Shopify's product taxonomy, 2025-08: leaves, labels, labels a leaf on average and at most.
_SHOPIFY_LEAVES = 8_516
_SHOPIFY_LABELS = 27_675
_SHOPIFY_MEAN = 114
_SHOPIFY_MOST = 538

_NUM_DEPARTMENTS = 25
_MOST_VALUES = 200
# Attributes that every department uses, as colour and material are.
_NUM_COMMON = 24
# Own attributes are picked at random from the department's; more than ever needed in one.
_MOST_PICKED = 96


@dataclass(frozen=True, slots=True)
class Shape:
    """How a table is built.

    Attributes:
        mean_values: of an attribute; exponentially spread, 200 at most.
        common_share: of a category's labels that belong to attributes common to all departments.
    """

    mean_values: int
    common_share: float


_PAPER_SHAPE = Shape(mean_values=12, common_share=1 / 3)
# Fitted to Shopify's own table: a batch of 256 of its leaves touches some 6,200 labels.
_SHOPIFY_SHAPE = Shape(mean_values=60, common_share=0.8)


@dataclass(frozen=True, slots=True)
class MaskTable:
    """Relevant label rows by category, as CSR on the CPU.

    Attributes:
        name: what it is, for the page.
        indptr: [C + 1], int64; indices: [nnz], int64, strictly increasing within a row.
        num_labels: L.
    """

    name: str
    indptr: Tensor
    indices: Tensor
    num_labels: int

    @property
    def num_categories(self) -> int:
        """C."""
        return len(self.indptr) - 1


def paper_masks(num_labels: int) -> MaskTable:
    """4,000 categories of 489 relevant labels each (fewer where L is), by ``taxonomy_masks``.

    Attributes have 12 values on average; a third of a category's labels are common ones.
    """
    lengths = [min(_PAPER_LABELS, num_labels)] * _PAPER_CATEGORIES
    return taxonomy_masks("synthetic", num_labels, lengths, _PAPER_SHAPE)


def shopify_like_masks() -> MaskTable:
    """Shopify's sizes: 8,516 leaves over 27,675 labels, about 114 a leaf and 538 at most.

    Lengths are gamma-distributed (shape 2) and cut at the most; ``taxonomy_masks`` does the rest.
    """
    rng = random.Random(_SHOPIFY_LABELS)
    lengths = [
        min(_SHOPIFY_MOST, 1 + round(rng.gammavariate(2, _SHOPIFY_MEAN / 2)))
        for _ in range(_SHOPIFY_LEAVES)
    ]
    return taxonomy_masks("synthetic, Shopify's sizes", _SHOPIFY_LABELS, lengths, _SHOPIFY_SHAPE)


def taxonomy_masks(
    name: str, num_labels: int, lengths: Sequence[int], shape: Shape, seed: int = 0
) -> MaskTable:
    """A table of the given row lengths, the same on every machine.

    The label space is cut into attributes whose values lie one after the other. The first 24
    attributes are common to all; the others are dealt to 25 departments, contiguous in the label
    space; so are the categories.
    A category takes common attributes, in random order, for a share of its labels, then random
    attributes of its department, and where these run out the ones behind them; the last of each
    kind is cut to its first values so that the length is met. So siblings share attributes whole,
    strangers share the common ones, and a row is a few dozen runs of neighbouring labels.

    Args:
        lengths: relevant labels of each category, each at most ``num_labels``.

    Raises:
        ValueError: a length that the label space does not have.
    """
    if lengths and max(lengths) > num_labels:
        raise ValueError(f"a row of {max(lengths)} labels does not fit in {num_labels}")
    rng = random.Random(seed)
    starts = _attribute_starts(rng, num_labels, shape.mean_values)
    num_attributes = len(starts) - 1
    num_common = min(_NUM_COMMON, num_attributes // 2)
    rows: list[list[int]] = []
    for category, length in enumerate(lengths):
        department = category * _NUM_DEPARTMENTS // len(lengths)
        common = rng.sample(range(num_common), num_common)
        row = _taken(starts, common, int(length * shape.common_share))
        own = _own_attributes(rng, department, num_common, num_attributes)
        row += _taken(starts, own, length - len(row))
        if len(row) < length:  # only where nearly every label is relevant
            known = set(row)
            row += [label for label in range(num_labels) if label not in known][: length - len(row)]
        rows.append(sorted(row))
    indptr = torch.zeros(len(rows) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor([len(row) for row in rows], dtype=torch.int64), 0, out=indptr[1:])
    indices = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
    return MaskTable(name, indptr, indices, num_labels)


def load_masks(path: Path) -> MaskTable:
    """A table from ``python -m benchmarks.kernels.export_masks``.

    Raises:
        ValueError: the file is no such table.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not {"mask_indptr", "mask_indices", "num_labels"} <= set(
        content
    ):
        raise ValueError(
            f"{path}: expected a dict with mask_indptr, mask_indices and num_labels; "
            "python -m benchmarks.kernels.export_masks writes one"
        )
    table = MaskTable(
        path.stem, content["mask_indptr"], content["mask_indices"], int(content["num_labels"])
    )
    check_masks(table.indptr, table.indices, table.num_labels)
    return table


def draw_categories(num_categories: int, num_products: int, draw: Draw, seed: int = 0) -> list[int]:
    """A category for each product, the same on every machine.

    ``uniform``: each equally likely. ``zipf``: the r-th most frequent with weight 1 / r, ranks
    dealt at random. ``equal``: one for all.
    """
    rng = random.Random(seed)
    if draw == "equal":
        return [rng.randrange(num_categories)] * num_products
    if draw == "uniform":
        return rng.choices(range(num_categories), k=num_products)
    by_rank = rng.sample(range(num_categories), num_categories)
    weights = [1 / (rank + 1) for rank in range(num_categories)]
    return rng.choices(by_rank, weights, k=num_products)


def _attribute_starts(rng: random.Random, num_labels: int, mean_values: int) -> list[int]:
    """First label of each attribute, and the end of the label space."""
    starts = [0]
    while starts[-1] < num_labels:
        values = 1 + int(rng.expovariate(1 / (mean_values - 1)))
        starts.append(min(num_labels, starts[-1] + min(values, _MOST_VALUES)))
    return starts


def _own_attributes(
    rng: random.Random, department: int, num_common: int, num_attributes: int
) -> Iterator[int]:
    """A department's attributes at random, then those behind it, around the label space."""
    num_own = num_attributes - num_common
    if num_own == 0:
        return
    first = num_own * department // _NUM_DEPARTMENTS
    end = num_own * (department + 1) // _NUM_DEPARTMENTS
    picked = rng.sample(range(first, end), min(end - first, _MOST_PICKED))
    yield from (num_common + place for place in picked)
    is_picked = set(picked)
    for step in range(num_own):
        place = (end + step) % num_own
        if place not in is_picked:
            yield num_common + place


def _taken(
    starts: Sequence[int], attributes: Sequence[int] | Iterator[int], most: int
) -> list[int]:
    """Labels of attributes in turn until there are ``most``; fewer where they run out."""
    labels: list[int] = []
    for attribute in attributes:
        if len(labels) >= most:
            break
        labels += range(starts[attribute], starts[attribute + 1])
    return labels[:most]
