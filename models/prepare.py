"""What a model's preparer hands to the planner and to the model: named arrays and a cost.

A preparer turns products into arrays (token ids, hashed n-grams, pixels, ...). The preparing
stage and the batch planner know nothing else about a model: they read ``costs``, choose rows and
pass the arrays on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.product import Product

__all__ = ["Prepared", "Preparer", "Ragged"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths in one flat array.

    Row ``i`` is ``values[indptr[i]:indptr[i + 1]]``.

    Args:
        values: [nnz, ...], any dtype.
        indptr: [N + 1], int64, starts at 0, never decreases.
    """

    values: NDArray[np.generic]
    indptr: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Row lengths, [N], int64."""
        return np.diff(self.indptr)

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """The given rows, in the given order."""
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        source = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return Ragged(self.values[source], indptr)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Products as a model's arrays.

    Args:
        arrays: by name; each with N rows.
        costs: [N], int32, at least 1: what one product costs the model (tokens, for a text
            encoder). A batch costs its largest cost times its number of products: it is padded.
    """

    arrays: Mapping[str, Ragged]
    costs: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.costs)

    def take(self, rows: NDArray[np.int64]) -> Prepared:
        """The given rows as a batch of their own."""
        taken = {name: ragged.take(rows) for name, ragged in self.arrays.items()}
        return Prepared(taken, self.costs[rows])


class Preparer(Protocol):
    """Turns products into arrays; holds no device memory and may run on any thread."""

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """Arrays and costs, a row a product, in their order. An empty sequence is allowed."""
        ...
