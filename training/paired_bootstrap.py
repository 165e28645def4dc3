"""Is one system better than another, or did this sample of products favour it?

The texts of a split are drawn again with replacement, the same ones for both systems, and both
are measured on the products of each draw (Efron 1979; paired, as Koehn 2004 has it). Texts, because
the products of one are right or wrong together: drawn one by one they would make an interval too
narrow. The middle 95 % of what comes out is the interval.

Legend: N products, C classes, L labels, K measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.design_effect import text_rows

__all__ = ["Interval", "attribute_figures", "category_figures", "intervals"]

Weights = NDArray[np.float64]
Figures = Callable[[Weights], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure of the whole split, and where it lies in 95 of 100 draws."""

    figure: float
    low: float
    high: float


def intervals(
    measure: Figures, texts: NDArray[np.int64], *, rounds: int = 1000, seed: int = 1
) -> list[Interval]:
    """Intervals of K figures.

    Args:
        measure: of products that count as often as drawn, [N], the K figures. For a paired
            interval: the difference of two systems'.
        texts: [N], equal where the text is the same (``training.same_texts.text_keys``).
        rounds: draws.
    """
    random = np.random.default_rng(seed)
    whole = measure(np.ones(len(texts)))
    rows = text_rows(texts)
    size = int(rows.max()) + 1
    drawn = np.stack(
        [
            measure(
                np.bincount(random.integers(0, size, size), minlength=size)[rows].astype(np.float64)
            )
            for _ in range(rounds)
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [Interval(*map(float, each)) for each in zip(whole, low, high, strict=True)]


def category_figures(
    true: NDArray[np.int64], predicted: NDArray[np.int64], trained: NDArray[np.bool_]
) -> Figures:
    """Accuracy, and macro F1 over the classes that were trained and are true of a drawn product.

    Args:
        true, predicted: [N], class rows.
        trained: [C], classes that occur in training.
    """
    size = len(trained)
    right = true == predicted

    def measure(weights: Weights) -> NDArray[np.float64]:
        wanted = np.bincount(true, weights, minlength=size)
        given = np.bincount(predicted, weights, minlength=size)
        hits = np.bincount(true[right], weights[right], minlength=size)
        of_class = (wanted > 0) & trained
        f1 = 2 * hits[of_class] / (wanted[of_class] + given[of_class])
        macro = f1.mean() if len(f1) else 0.0
        return np.array([hits.sum() / weights.sum(), macro])

    return measure


def attribute_figures(
    true: Sequence[Sequence[int]],
    predicted: Sequence[Sequence[int]],
    trained: NDArray[np.bool_],
) -> Figures:
    """Micro F1, and macro F1 over the labels that were trained and are true of a drawn product.

    Args:
        true, predicted: label rows of each product, each once; -1: a label that is not in the
            label space, which counts as missed.
        trained: [L], labels that occur in training.
    """
    size = len(trained)
    of_true, true_owner = _flat(true)
    of_given, given_owner = _flat(predicted)
    known = of_true >= 0
    keys = true_owner[known] * size + of_true[known]
    hit = np.isin(given_owner * size + of_given, keys)

    def measure(weights: Weights) -> NDArray[np.float64]:
        wanted = np.bincount(of_true[known], weights[true_owner[known]], minlength=size)
        given = np.bincount(of_given, weights[given_owner], minlength=size)
        hits = np.bincount(of_given[hit], weights[given_owner[hit]], minlength=size)
        seen = trained & (wanted > 0)
        f1 = 2 * hits[seen] / (wanted[seen] + given[seen])
        total = given.sum() + weights[true_owner].sum()
        return np.array([2 * hits.sum() / max(1.0, total), f1.mean() if len(f1) else 0.0])

    return measure


def _flat(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flat = np.array([row for each in rows for row in each], dtype=np.int64)
    return flat, np.repeat(np.arange(len(rows)), [len(each) for each in rows])
