"""One batch through a predictor: the single way from arrays to scores.

The worker, ``sortiment-train evaluate`` and a release's self-check all come through here, so what
is measured is what is served.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models.device_masks import DeviceMasks
from models.labels import LabelSpace
from models.predictor import CategoryScores, LabelScores, Predictor
from models.prepare import Prepared
from models.taxonomy import Taxonomy, compile_masks

__all__ = ["CompiledMasks", "MaskSource", "leaf_rows", "predict"]


class MaskSource(Protocol):
    """Where masks come from: a cache in the worker, ``CompiledMasks`` elsewhere."""

    def lookup(self, taxonomy_rows: NDArray[np.int64]) -> tuple[DeviceMasks, NDArray[np.int64]]:
        """Masks of categories.

        Args:
            taxonomy_rows: [B], int64, positions in ``Taxonomy.categories``; -1 for none.

        Returns:
            Masks on the model's device, and the row in them of each, [B], int64, -1 for none.
        """
        ...


class CompiledMasks:
    """Every category's mask, compiled at once."""

    def __init__(self, taxonomy: Taxonomy, labels: LabelSpace, device: torch.device) -> None:
        masks = compile_masks(taxonomy, tuple(taxonomy.categories), labels)
        self._masks = DeviceMasks.from_masks(masks, device)

    def lookup(self, taxonomy_rows: NDArray[np.int64]) -> tuple[DeviceMasks, NDArray[np.int64]]:
        """As ``MaskSource.lookup``: the rows are the taxonomy's own."""
        return self._masks, taxonomy_rows


def leaf_rows(taxonomy: Taxonomy, categories: LabelSpace) -> NDArray[np.int64]:
    """Position in ``taxonomy.categories`` of each category of a label space, [leaves], int64."""
    position = {category: row for row, category in enumerate(taxonomy.categories)}
    return np.array([position[category] for category in categories.ids], dtype=np.int64)


def predict(
    predictor: Predictor,
    batch: Prepared,
    masks: MaskSource | None,
    rows_of_leaves: NDArray[np.int64],
    *,
    top_k: int,
    given_rows: NDArray[np.int64] | None = None,
) -> tuple[CategoryScores | None, LabelScores | None]:
    """Categories of a batch, and the labels relevant to them above their thresholds.

    Args:
        predictor: a release's models.
        batch: B products from the predictor's preparer.
        masks: needed where there is an attribute model.
        rows_of_leaves: [leaves], int64, from ``leaf_rows``; empty without a category model.
        top_k: categories a product.
        given_rows: [B], int64, positions in ``Taxonomy.categories`` that choose the mask instead
            of the best predicted category; -1 leaves it to the prediction (none without a
            category model).

    Returns:
        Category scores, or None without a category model; label scores, or None without an
        attribute model. Where both models share an encoder, its forward runs once.
    """
    category, attribute = predictor.category, predictor.attribute
    with torch.inference_mode():
        features = None
        categories = None
        if category is not None:
            features = category.encoder.encode(batch)
            categories = category.score_categories(features, top_k)
        if attribute is None:
            return categories, None
        if masks is None:
            raise ValueError("an attribute model needs masks, got None")
        if features is None or category is None or attribute.encoder is not category.encoder:
            features = attribute.encoder.encode(batch)
        rows = (
            rows_of_leaves[categories.rows[:, 0]]
            if categories is not None
            else np.full(len(batch), -1, dtype=np.int64)
        )
        if given_rows is not None:
            rows = np.where(given_rows >= 0, given_rows, rows)
        table, mask_rows = masks.lookup(rows)
        return categories, attribute.score_labels(features, table, mask_rows, rows)
