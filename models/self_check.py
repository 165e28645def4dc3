"""A release's self-check: examples of what its models answer, and the proof that they still do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from models.device_masks import DeviceMasks
from models.errors import ReleaseError
from models.labels import LabelSpace
from models.predict import leaf_rows, predict
from models.predictor import CategoryScores, LabelScores, Predictor
from models.product import Product
from models.release import Release
from models.release_documents import Example
from models.taxonomy import Taxonomy, compile_masks

__all__ = ["make_examples", "run_self_check"]

Scored = tuple[tuple[str, float], ...]

# bfloat16 keeps 8 bits: it rounds a logit near 8 by up to 0.016, and every layer before likewise.
_TOLERANCE = 0.05
_TOP_K = 5


def make_examples(
    predictor: Predictor,
    products: Sequence[Product],
    taxonomy: Taxonomy,
    device: torch.device | None = None,
) -> tuple[Example, ...]:
    """What the predictor answers to products: the self-check of the release it goes into.

    Labels are scored for the best predicted category, or for the claimed one (a category of the
    taxonomy) where there is no category model.

    Args:
        device: where the predictor runs; None: the CPU.
    """
    claimed = [
        product.claimed_category if product.claimed_category in taxonomy.categories else None
        for product in products
    ]
    answers = _answers(predictor, products, taxonomy, claimed, device, force=False)
    return tuple(
        Example(
            product,
            None
            if predictor.attribute is None
            else (categories[0][0] if categories else claimed_category),
            categories,
            labels,
            _TOLERANCE,
        )
        for product, claimed_category, (categories, labels) in zip(
            products, claimed, answers, strict=True
        )
    )


def run_self_check(
    release: Release, predictor: Predictor, device: torch.device | None = None
) -> None:
    """Compare the predictor's answers to the release's examples with those of its making.

    Scores may differ by the example's tolerance; a category or label may be missing on one side
    only where it was within the tolerance of being left out.

    Args:
        device: where the predictor runs; None: the CPU.

    Raises:
        ReleaseError: naming the first example that differs, and how.
    """
    products = [example.product for example in release.examples]
    given = [example.mask_category for example in release.examples]
    answers = _answers(predictor, products, release.taxonomy, given, device, force=True)

    def threshold_of(_: Scored, label: str) -> float:
        """A label is left out below its threshold."""
        if release.labels is None or release.label_thresholds is None:
            return 0.0
        return float(release.label_thresholds[release.labels.row_of[label]])

    for number, (example, (categories, labels)) in enumerate(
        zip(release.examples, answers, strict=True)
    ):
        differs = _difference(
            example.categories, categories, _last_score, example.tolerance
        ) or _difference(example.labels, labels, threshold_of, example.tolerance)
        if differs:
            raise ReleaseError(
                f"release {release.id}: self-check example {number} "
                f"(product {example.product.product_id!r}) differs: {differs}; "
                "the weights, the settings or this machine's libraries are not those of its making"
            )


def _last_score(side: Scored, _: str) -> float:
    """A category is left out below the last of the top k."""
    return side[-1][1] if side else 0.0


def _difference(
    before: Scored, now: Scored, left_out: Callable[[Scored, str], float], tolerance: float
) -> str | None:
    """How two answers differ; what one side lacks counts there as just below ``left_out``."""
    then_of, now_of = dict(before), dict(now)
    for identifier in {**then_of, **now_of}:
        was = then_of.get(identifier, left_out(before, identifier))
        is_now = now_of.get(identifier, left_out(now, identifier))
        # "not <=": a score that is no number differs.
        if not abs(was - is_now) <= tolerance:
            return f"{identifier} scored {was:.4f} then and {is_now:.4f} now"
    return None


def _answers(
    predictor: Predictor,
    products: Sequence[Product],
    taxonomy: Taxonomy,
    given: Sequence[str | None],
    device: torch.device | None,
    *,
    force: bool,
) -> list[tuple[Scored, Scored]]:
    """Categories and labels of each product, all in one batch.

    Args:
        given: category ids that choose the mask: of all products if ``force``, else only where
            there is no category model.
    """
    category, attribute = predictor.category, predictor.attribute
    masks = None
    if attribute is not None:
        masks = _MasksOnDemand(taxonomy, attribute.labels, device or torch.device("cpu"))
    given_rows = None
    if force or category is None:
        position = {each: row for row, each in enumerate(taxonomy.categories)}
        given_rows = np.array(
            [-1 if each is None else position[each] for each in given], dtype=np.int64
        )
    categories, labels = predict(
        predictor,
        predictor.preparer.prepare(products),
        masks,
        np.empty(0, dtype=np.int64)
        if category is None
        else leaf_rows(taxonomy, category.categories),
        top_k=_TOP_K,
        given_rows=given_rows,
    )
    named_categories = (
        [()] * len(products)
        if categories is None or category is None
        else _named_categories(categories, category.categories)
    )
    named_labels = (
        [()] * len(products)
        if labels is None or attribute is None
        else _named_labels(labels, attribute.labels)
    )
    return list(zip(named_categories, named_labels, strict=True))


def _named_categories(found: CategoryScores, space: LabelSpace) -> list[Scored]:
    return [
        tuple((space.ids[row], score) for row, score in zip(rows, scores, strict=True))
        for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    ]


def _named_labels(found: LabelScores, space: LabelSpace) -> list[Scored]:
    pairs = [
        (space.ids[row], score)
        for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    ]
    ends = found.indptr.tolist()
    return [tuple(pairs[start:end]) for start, end in pairwise(ends)]


class _MasksOnDemand:
    """Masks of the few categories that the examples need: a large taxonomy compiles for seconds."""

    def __init__(self, taxonomy: Taxonomy, labels: LabelSpace, device: torch.device) -> None:
        self._taxonomy = taxonomy
        self._ids = tuple(taxonomy.categories)
        self._labels = labels
        self._device = device

    def lookup(self, taxonomy_rows: NDArray[np.int64]) -> tuple[DeviceMasks, NDArray[np.int64]]:
        """As ``models.predict.MaskSource``."""
        distinct = np.unique(taxonomy_rows[taxonomy_rows >= 0])
        category_ids = [self._ids[row] for row in distinct.tolist()]
        masks = compile_masks(self._taxonomy, category_ids, self._labels)
        mask_rows = np.where(taxonomy_rows >= 0, np.searchsorted(distinct, taxonomy_rows), -1)
        return DeviceMasks.from_masks(masks, self._device), mask_rows.astype(np.int64)
