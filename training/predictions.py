"""What a release answers to labelled products, in memory.

Batches go through ``models.predict.predict`` with the release's thresholds, as in the worker, so
the answers are those that would be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.device_masks import DeviceMasks
from models.labels import LabelSpace
from models.predict import CompiledMasks, leaf_rows, predict
from models.predictor import (
    AttributeModel,
    CategoryModel,
    CategoryScores,
    Encoder,
    LabelScores,
    Predictor,
)
from models.prepare import Prepared
from models.release import Release
from training.data import LabelledProduct

__all__ = ["Predictions", "plan", "predict_products"]

# Products prepared and sorted by cost at a time, and what one batch may hold and cost.
_WINDOW = 4_096
_MAX_BATCH_PRODUCTS = 256
_MAX_BATCH_COST = 16_384


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers to N products, in their order.

    Attributes:
        categories: best category of each; None without a category model.
        scores: [N], float32, of those; zeros without.
        assigned: [N], bool: at or above the category's threshold.
        labels: label ids at or above their thresholds, masked by the predicted category; None
            without both models.
        labels_of_true: likewise, masked by the true category (by the predicted one where the
            taxonomy lacks the true one); None without an attribute model.
        seconds: what preparing and the models took.
    """

    categories: list[str] | None
    scores: NDArray[np.float32]
    assigned: NDArray[np.bool_]
    labels: list[tuple[str, ...]] | None
    labels_of_true: list[tuple[str, ...]] | None
    seconds: float

    def right(self, true: Sequence[str]) -> NDArray[np.bool_]:
        """Where the best category is the true one, [N]; nowhere without a category model.

        Args:
            true: N category ids.
        """
        if self.categories is None:
            return np.zeros(len(true), dtype=np.bool_)
        pairs = zip(self.categories, true, strict=True)
        return np.fromiter((one == other for one, other in pairs), np.bool_, len(true))


def predict_products(
    release: Release,
    predictor: Predictor,
    items: Sequence[LabelledProduct],
    device: torch.device,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Predictions:
    """Run a release's models over products.

    Args:
        device: where the predictor runs.
        advance: called with the number of products that are done.
    """
    category, attribute = predictor.category, predictor.attribute
    shared = _share_features(predictor)
    masks = None
    if attribute is not None:
        masks = CompiledMasks(release.taxonomy, attribute.labels, device)
    leaves = np.empty(0, dtype=np.int64)
    if category is not None:
        leaves = leaf_rows(release.taxonomy, category.categories)
    position = {each: row for row, each in enumerate(release.taxonomy.categories)}
    true_rows = np.array([position.get(item.category, -1) for item in items], dtype=np.int64)

    num_products = len(items)
    best = np.zeros(num_products, dtype=np.int64)
    scores = np.zeros(num_products, dtype=np.float32)
    labels: list[tuple[str, ...]] = [()] * num_products
    labels_of_true: list[tuple[str, ...]] = [()] * num_products
    started = time.monotonic()
    for first in range(0, num_products, _WINDOW):
        window = [item.product for item in items[first : first + _WINDOW]]
        prepared = predictor.preparer.prepare(window)
        for rows in plan(prepared.costs):
            batch, places = prepared.take(rows), rows + first
            if category is not None:
                found, served = predict(shared, batch, masks, leaves, top_k=1)
                if found is not None:
                    best[places], scores[places] = found.rows[:, 0], found.scores[:, 0]
                if served is not None and attribute is not None:
                    _put(labels, places, served, attribute.labels)
            if attribute is not None:
                _, of_true = predict(
                    shared, batch, masks, leaves, top_k=1, given_rows=true_rows[places]
                )
                if of_true is not None:
                    _put(labels_of_true, places, of_true, attribute.labels)
            advance(len(rows))
    seconds = time.monotonic() - started
    has_labels = attribute is not None
    if category is None:
        nothing = np.zeros(num_products, dtype=np.bool_)
        return Predictions(
            None, scores, nothing, None, labels_of_true if has_labels else None, seconds
        )
    return Predictions(
        [category.categories.ids[row] for row in best.tolist()],
        scores,
        scores >= category.thresholds[best],
        labels if has_labels else None,
        labels_of_true if has_labels else None,
        seconds,
    )


def plan(costs: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Rows of each batch: neighbours in cost, at most 256 products, padded cost at most 16,384.

    A single product may cost more.
    """
    order = np.argsort(costs, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    for end in range(1, len(order) + 1):
        full = end - start == _MAX_BATCH_PRODUCTS
        if end == len(order) or full or costs[order[end]] * (end + 1 - start) > _MAX_BATCH_COST:
            batches.append(order[start:end])
            start = end
    return batches


def _put(
    into: list[tuple[str, ...]], places: NDArray[np.int64], found: LabelScores, space: LabelSpace
) -> None:
    ids = [space.ids[row] for row in found.rows.tolist()]
    for place, (start, end) in zip(places.tolist(), pairwise(found.indptr.tolist()), strict=True):
        into[place] = tuple(ids[start:end])


class _LastBatch:
    """An encoder that remembers its last batch: a batch is scored under two masks."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[Prepared, Tensor] | None = None

    def encode(self, batch: Prepared) -> Tensor:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, self._encoder.encode(batch)
        return self._last[1]


@dataclass(slots=True)
class _Categories:
    encoder: Encoder
    categories: LabelSpace
    thresholds: NDArray[np.float32]
    model: CategoryModel

    def score_categories(self, features: Tensor, top_k: int) -> CategoryScores:
        return self.model.score_categories(features, top_k)


@dataclass(slots=True)
class _Attributes:
    encoder: Encoder
    labels: LabelSpace
    thresholds: NDArray[np.float32]
    model: AttributeModel

    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        return self.model.score_labels(features, masks, mask_rows, category_rows)


def _share_features(predictor: Predictor) -> Predictor:
    """The predictor with encoders that remember; a shared one stays shared."""
    category, attribute = predictor.category, predictor.attribute
    encoders: dict[int, Encoder] = {}
    for model in (category, attribute):
        if model is not None and id(model.encoder) not in encoders:
            encoders[id(model.encoder)] = _LastBatch(model.encoder)
    return Predictor(
        predictor.preparer,
        None
        if category is None
        else _Categories(
            encoders[id(category.encoder)], category.categories, category.thresholds, category
        ),
        None
        if attribute is None
        else _Attributes(
            encoders[id(attribute.encoder)], attribute.labels, attribute.thresholds, attribute
        ),
    )
