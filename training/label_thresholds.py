"""Thresholds of labels by how often they were trained, fitted on valid.

Micro F1 is highest where every label is cut at the same odds of being right; the threshold that is
best for each label's own F1 takes too much. To first order a cut that takes n pairs of a label, h
of them right, adds ``(2 h - F n) / (taken + true)`` to a micro F1 of F: that is what each band is
cut by. A score says less of a rare label: trained on few products it stays low where it is right.
Labels trained alike often share a threshold, and their mean F1 counts a little beside, which costs
micro F1 next to nothing. No label is cut alone: what is best for its products on valid is not for
others (on market, halves of valid without a common title, macro F1 weighing 0.1: 0.652 and 0.388,
against 0.647 and 0.386 with a threshold of its own for each label that valid has 20 times).

Legend: L labels, M scored (product, label) pairs, K cuts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["banded_thresholds"]

# Least training products of a band's labels, each some three times the band's before.
_BANDS = (0, 3, 10, 30, 100, 300, 1000)
# Cuts that are tried: a tenth of a logit, from a score of 0.02 to one of 0.9.
_CUTS = 1 / (1 + np.exp(-np.arange(-4.0, 2.25, 0.1)))
# A band with fewer true pairs on valid joins the next; the last ones get the pooled cut.
_MIN_PAIRS = 20
# Of macro F1 beside micro F1. On market's valid, scores calibrated, fitted on half of the titles
# and measured on the others, 0 gave 0.6584 and 0.371, 0.02 gave 0.6585 and 0.381, 0.05 gave 0.6580
# and 0.389.
_MACRO_WEIGHT = 0.02


def banded_thresholds(
    scores: NDArray[np.float32],
    label_rows: NDArray[np.int64],
    positive: NDArray[np.bool_],
    num_positives: NDArray[np.int64],
    train_counts: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The threshold of each label's band; the pooled one where valid says too little of it.

    Args:
        scores: [M]; label_rows: [M], int64; positive: [M].
        num_positives: [L], true positives of each label on valid. train_counts: [L], training
            products of each label.

    Returns:
        [L], float32, in (0, 1); 0.5 where valid has no true pair.
    """
    num_labels = len(num_positives)
    total = int(num_positives.sum())
    if not len(scores) or not total:
        return np.full(num_labels, 0.5, dtype=np.float32)
    taken, hits = _counts(scores, label_rows, positive, num_labels)
    micro = 2 * hits.sum(axis=1) / (taken.sum(axis=1) + total)
    pooled = int(micro.argmax())
    gains = (2 * hits - micro[pooled] * taken) / (taken[pooled].sum() + total)
    thresholds = np.full(num_labels, _CUTS[pooled], dtype=np.float32)
    f1 = 2 * hits / np.maximum(taken + num_positives, 1)
    gains += _MACRO_WEIGHT / np.count_nonzero(num_positives) * f1
    band_of = np.searchsorted(np.array(_BANDS), train_counts, side="right") - 1
    pending = np.zeros(num_labels, dtype=np.bool_)
    for band in range(len(_BANDS)):
        pending |= band_of == band
        if num_positives[pending].sum() >= _MIN_PAIRS:
            thresholds[pending] = _CUTS[int(gains[:, pending].sum(axis=1).argmax())]
            pending[:] = False
    return thresholds


def _counts(
    scores: NDArray[np.float32],
    label_rows: NDArray[np.int64],
    positive: NDArray[np.bool_],
    num_labels: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of each label at or above each cut, and the true ones among them, [K, L]."""
    above = np.searchsorted(_CUTS, scores, side="right")
    size = (len(_CUTS) + 1) * num_labels
    keys = above * num_labels + label_rows
    found = []
    for of in (keys, keys[positive]):
        by_cut = np.bincount(of, minlength=size).reshape(-1, num_labels)
        # A pair that is above k cuts is taken by each of them.
        found.append(by_cut[::-1].cumsum(axis=0)[::-1][1:].astype(np.float64))
    return found[0], found[1]
