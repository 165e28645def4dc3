"""Architecture ``noop``: a predictor without a model, to measure and fuzz the worker by itself.

Its answers look like a model's (they spread over all leaves and over each category's relevant
labels) and depend only on a product's place in its batch. It is released and loaded like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.device_masks import DeviceMasks
from models.labels import LabelSpace
from models.predictor import CategoryScores, Encoder, LabelScores, Predictor
from models.prepare import Prepared
from models.product import Product
from models.release import Release
from models.release_writing import write_release
from models.self_check import make_examples
from models.taxonomy import Taxonomy

__all__ = ["load_noop", "noop_release"]

# Odd, so it meets every leaf where their number is a power of two; prime, so nearly always else.
_STRIDE = 1_000_003
_MAX_LABELS = 3
_THRESHOLD = 0.5
_NUM_EXAMPLES = 4


class _NoopPreparer:
    def prepare(self, products: Sequence[Product]) -> Prepared:
        """No arrays; each product costs 1."""
        return Prepared({}, np.ones(len(products), dtype=np.int32))


class _NoopEncoder:
    def encode(self, batch: Prepared) -> Tensor:
        """Features [B, 0]: nothing but the number of products."""
        return torch.empty(len(batch), 0)


class _NoopCategories:
    def __init__(
        self, encoder: _NoopEncoder, categories: LabelSpace, thresholds: NDArray[np.float32]
    ) -> None:
        self.encoder: Encoder = encoder
        self.categories = categories
        self.thresholds = thresholds

    def score_categories(self, features: Tensor, top_k: int) -> CategoryScores:
        """Neighbouring leaves from one that the place in the batch chooses; 0.9, 0.45, ..."""
        num_products, num_leaves = len(features), len(self.categories)
        ranks = np.arange(min(top_k, num_leaves), dtype=np.int64)
        first = np.arange(num_products, dtype=np.int64) * _STRIDE % num_leaves
        rows = (first[:, None] + ranks) % num_leaves
        scores = (0.9 * 0.5**ranks).astype(np.float32)
        return CategoryScores(rows, np.broadcast_to(scores, rows.shape).copy())


class _NoopAttributes:
    def __init__(
        self, encoder: _NoopEncoder, labels: LabelSpace, thresholds: NDArray[np.float32]
    ) -> None:
        self.encoder: Encoder = encoder
        self.labels = labels
        self.thresholds = thresholds

    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        """Up to three relevant labels from one that the place chooses; 0.9, 0.8, 0.7."""
        mask_indptr, mask_indices = masks.indptr.cpu().numpy(), masks.indices.cpu().numpy()
        known = mask_rows >= 0
        starts = np.where(known, mask_indptr[mask_rows], 0)
        sizes = np.where(known, mask_indptr[mask_rows + 1] - starts, 0)
        counts = np.minimum(sizes, _MAX_LABELS)
        indptr = np.zeros(len(mask_rows) + 1, dtype=np.int64)
        np.cumsum(counts, out=indptr[1:])
        owners = np.repeat(np.arange(len(mask_rows)), counts)
        ranks = np.arange(indptr[-1]) - indptr[owners]
        places = starts[owners] + (owners * _STRIDE + ranks) % sizes[owners]
        scores = (0.9 - 0.1 * ranks).astype(np.float32)
        return LabelScores(indptr, mask_indices[places], scores)


def load_noop(
    release: Release, device: torch.device, dtype: Literal["auto", "float32", "bfloat16"]
) -> Predictor:
    """The predictor of a noop release; it runs on the CPU whatever the device."""
    return _predictor(
        release.categories,
        release.labels,
        release.category_thresholds,
        release.label_thresholds,
    )


def noop_release(directory: Path, taxonomy: Taxonomy, *, version: str = "1") -> Release:
    """Write release ``noop/<version>`` for all leaves and labels of a taxonomy.

    Raises:
        ReleaseError: the directory is there already, or the taxonomy has no category.
    """
    categories = LabelSpace(taxonomy.leaves)
    labels = LabelSpace(taxonomy.label_ids()) if taxonomy.label_ids() else None
    category_thresholds = np.full(len(categories), _THRESHOLD, dtype=np.float32)
    label_thresholds = (
        None if labels is None else np.full(len(labels), _THRESHOLD, dtype=np.float32)
    )
    predictor = _predictor(categories, labels, category_thresholds, label_thresholds)
    products = [
        Product(f"example-{number}", None, "en", f"Example {number}", "", (), (), None)
        for number in range(_NUM_EXAMPLES)
    ]
    return write_release(
        directory,
        name="noop",
        version=version,
        architecture="noop",
        config={},
        taxonomy=taxonomy,
        categories=categories,
        labels=labels,
        category_thresholds=category_thresholds,
        label_thresholds=label_thresholds,
        weights={},
        files={},
        examples=make_examples(predictor, products, taxonomy),
        metrics={},
    )


def _predictor(
    categories: LabelSpace | None,
    labels: LabelSpace | None,
    category_thresholds: NDArray[np.float32] | None,
    label_thresholds: NDArray[np.float32] | None,
) -> Predictor:
    encoder = _NoopEncoder()
    return Predictor(
        _NoopPreparer(),
        None
        if categories is None or category_thresholds is None
        else _NoopCategories(encoder, categories, category_thresholds),
        None
        if labels is None or label_thresholds is None
        else _NoopAttributes(encoder, labels, label_thresholds),
    )
