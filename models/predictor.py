"""The protocols that a released model fulfils, and what it answers.

A release names a category model, an attribute model or both. Where both share an encoder (the
same object), its forward runs once a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.device_masks import DeviceMasks
from models.labels import LabelSpace
from models.prepare import Prepared, Preparer

__all__ = [
    "AttributeModel",
    "CategoryModel",
    "CategoryScores",
    "Encoder",
    "LabelScores",
    "Predictor",
]


@dataclass(frozen=True, slots=True)
class CategoryScores:
    """The best categories of each product, best first.

    Args:
        rows: [B, K], int64, rows of the model's category label space.
        scores: [B, K], float32, in [0, 1], calibrated, never increasing along K.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Relevant labels at or above their threshold, as CSR; within a product best first.

    Args:
        indptr: [B + 1], int64.
        rows: [nnz], int64, rows of the model's attribute label space.
        scores: [nnz], float32, in [0, 1].
    """

    indptr: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class Encoder(Protocol):
    """Arrays to features, on the model's device."""

    def encode(self, batch: Prepared) -> Tensor:
        """Features [B, ...] of the batch's products, in its order, as the heads read them."""
        ...


class CategoryModel(Protocol):
    """Scores leaves."""

    encoder: Encoder
    categories: LabelSpace  # leaf ids
    thresholds: NDArray[np.float32]  # [leaves]: assigned at or above, else review

    def score_categories(self, features: Tensor, top_k: int) -> CategoryScores:
        """The ``min(top_k, leaves)`` best leaves of each product. Equal scores: lowest row."""
        ...


class AttributeModel(Protocol):
    """Scores the labels that are relevant to a given category."""

    encoder: Encoder
    labels: LabelSpace  # label ids
    thresholds: NDArray[np.float32]  # [labels]

    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        """Labels at or above their thresholds.

        Args:
            features: [B, ...], from the encoder.
            masks: relevant labels per mask row, on the features' device.
            mask_rows: [B], int64, the mask row of each product's category; -1: no labels.
            category_rows: [B], int64, that category's position in ``Taxonomy.categories``; -1:
                none. For models that have more to a category than its mask.
        """
        ...


@dataclass(frozen=True, slots=True)
class Predictor:
    """A release's models, ready to run. At least one of the two is there."""

    preparer: Preparer
    category: CategoryModel | None
    attribute: AttributeModel | None
