"""Measures of what was predicted against what is true, over plain sequences of ids and scores.

The same functions measure a release in memory and the events that came out of Kafka. Measures of
nothing (no products, no labels) are 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from training.design_effect import design_effect

__all__ = [
    "LabelMeasures",
    "Reliability",
    "accuracy",
    "accuracy_coverage",
    "accuracy_where",
    "by_score",
    "label_measures",
    "macro_f1",
    "reliability",
    "share_by_group",
    "share_interval",
]

# Of the standard normal, for an interval of 95 %.
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """Precision, recall and F1 over (product, label) pairs.

    ``micro`` counts all pairs alike; ``macro`` is the mean over the labels that are true of at
    least one product, so a rare label weighs as much as a frequent one.
    """

    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far scores are from being shares of correct answers, in bins of equal width.

    Attributes:
        mean_scores, accuracies: [bins], of the answers in each bin; NaN where it has none.
        counts: [bins], int64.
        calibration_error: mean distance of score and accuracy, weighted by counts (ECE).
    """

    mean_scores: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    counts: NDArray[np.int64]
    calibration_error: float


def accuracy(true: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Share of predictions that are the true one.

    Raises:
        ValueError: the two differ in length.
    """
    pairs = list(zip(true, predicted, strict=True))
    return sum(one == other for one, other in pairs) / max(1, len(pairs))


def macro_f1(true: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean F1 over the classes that are true of at least one product.

    Raises:
        ValueError: the two differ in length.
    """
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} true classes, {len(predicted)} predicted")
    if not true:
        return 0.0
    classes = {name: row for row, name in enumerate(sorted({*true, *predicted}))}
    wanted = sorted({classes[name] for name in true})
    rows = [[classes[name] for name in names] for names in (true, predicted)]
    return float(f1_score(*rows, labels=wanted, average="macro", zero_division=0))


def label_measures(
    true: Sequence[Collection[str]], predicted: Sequence[Collection[str]]
) -> LabelMeasures:
    """Measures of attribute labels, as ave-label-masking has them (section 5.2).

    A true label that no model could give (it is not in the label space, or not relevant to the
    category whose mask was used) counts as missed. A product without true labels counts too:
    what is predicted for it is false.

    Args:
        true, predicted: the label ids of each product; a label counts once a product.

    Raises:
        ValueError: the two differ in length.
    """
    hits: Counter[str] = Counter()
    of_true: Counter[str] = Counter()
    of_predicted: Counter[str] = Counter()
    for wanted, got in zip(true, predicted, strict=True):
        wanted, got = frozenset(wanted), frozenset(got)
        of_true.update(wanted)
        of_predicted.update(got)
        hits.update(wanted & got)
    labels = list(of_true)
    by_label = [_f1(hits[label], of_predicted[label], of_true[label]) for label in labels]
    macro = np.array(by_label).mean(axis=0).tolist() if labels else (0.0, 0.0, 0.0)
    return LabelMeasures(*_f1(hits.total(), of_predicted.total(), of_true.total()), *macro)


def accuracy_where(correct: ArrayLike, chosen: ArrayLike) -> tuple[float, float]:
    """Coverage (share of products that are chosen) and accuracy among the chosen.

    Args:
        correct, chosen: [N], bool.
    """
    right, kept = np.asarray(correct, dtype=np.bool_), np.asarray(chosen, dtype=np.bool_)
    num_kept = int(kept.sum())
    return num_kept / max(1, len(kept)), int((right & kept).sum()) / max(1, num_kept)


def accuracy_coverage(
    scores: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy of the products above a threshold against their share, for every threshold.

    Args:
        scores: [N]; correct: [N], bool.

    Returns:
        Coverage [S], rising to 1, and accuracy [S]: a point for each score that occurs, for no
        threshold takes some products of a score and leaves others.
    """
    best_first, ends = by_score(np.asarray(scores, dtype=np.float64))
    hits = np.cumsum(np.asarray(correct, dtype=np.bool_)[best_first])[ends]
    counts = ends + 1
    return counts / max(1, len(best_first)), hits / counts


def by_score(scores: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order [N], the best first, and the places [S] in it where products of a score end."""
    best_first = np.argsort(-scores, kind="stable")
    ordered = scores[best_first]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    return best_first, ends


def reliability(scores: ArrayLike, correct: ArrayLike, num_bins: int = 10) -> Reliability:
    """Accuracy by score.

    Args:
        scores: [N], in [0, 1]; correct: [N], bool.
    """
    of_scores = np.asarray(scores, dtype=np.float64)
    bins = np.minimum((of_scores * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = np.bincount(bins, weights=of_scores, minlength=num_bins)
    hits = np.bincount(bins, weights=np.asarray(correct, dtype=np.float64), minlength=num_bins)
    filled = np.maximum(counts, 1)
    empty = np.where(counts == 0, np.nan, 0.0)
    return Reliability(
        mean_scores=sums / filled + empty,
        accuracies=hits / filled + empty,
        counts=counts,
        calibration_error=float(np.abs(sums - hits).sum() / max(1, len(of_scores))),
    )


def share_by_group(
    groups: Sequence[str], correct: Sequence[bool]
) -> Mapping[str, tuple[int, float]]:
    """Number of products and share of correct ones, by group, in the groups' order.

    Raises:
        ValueError: the two differ in length.
    """
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for group, is_correct in zip(groups, correct, strict=True):
        counts[group] += 1
        hits[group] += bool(is_correct)
    return {group: (counts[group], hits[group] / counts[group]) for group in sorted(counts)}


def share_interval(correct: NDArray[np.bool_], texts: NDArray[np.int64]) -> tuple[float, float]:
    """Wilson's 95 % interval of the share of correct ones; (0, 1) where there are no products.

    With z the normal's 0.975 quantile ``(h + z^2/2 +- z sqrt(h (n - h)/n + z^2/4)) / (n + z^2)``,
    n and h by the design effect: products of one text are right or wrong together.

    Args:
        correct: [N]. texts: [N], equal where the text is the same.
    """
    if len(correct) == 0:
        return 0.0, 1.0
    count = len(correct) / design_effect(correct, texts)
    hits = float(correct.mean()) * count
    middle = hits + _Z**2 / 2
    reach = _Z * sqrt(hits * (count - hits) / count + _Z**2 / 4)
    total = count + _Z**2
    low, high = (middle - reach) / total, (middle + reach) / total
    # To the digit, where all are right or none is.
    return (low if correct.any() else 0.0), (1.0 if correct.all() else high)


def _f1(hits: int, num_predicted: int, num_true: int) -> tuple[float, float, float]:
    return (
        hits / max(1, num_predicted),
        hits / max(1, num_true),
        2 * hits / max(1, num_predicted + num_true),
    )
