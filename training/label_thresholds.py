"""Thresholds of labels by how often they were trained, fitted on valid.

A score says less of a rare label: trained on few products it stays low where it is right. One
threshold for all labels, the best for most pairs, so leaves the rare ones unsaid; and valid holds
too few of each to give it a threshold of its own. Labels trained alike often share one.

Legend: L labels, M scored (product, label) pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.calibrate import MIN_POSITIVES, attribute_thresholds

__all__ = ["banded_thresholds"]

# Least training products of a band's labels, each some three times the band's before.
_BANDS = (0, 3, 10, 30, 100, 300, 1000)
# Cuts that are tried: a tenth of a logit, from a score of 0.02 to one of 0.9.
_CUTS = 1 / (1 + np.exp(-np.arange(-4.0, 2.25, 0.1)))
# With fewer true pairs on valid a band takes the one before it in.
_MIN_PAIRS = 20


def banded_thresholds(
    scores: NDArray[np.float32],
    label_rows: NDArray[np.int64],
    positive: NDArray[np.bool_],
    num_positives: NDArray[np.int64],
    train_counts: NDArray[np.int64],
) -> NDArray[np.float32]:
    """A label's own threshold where valid says enough, else the one of its band.

    A band's threshold makes the sum of its micro F1 and its mean label F1 highest. Labels with
    at least ``MIN_POSITIVES`` on valid get their own as ``attribute_thresholds`` has it.

    Args:
        scores: [M]; label_rows: [M], int64; positive: [M].
        num_positives: [L], true positives of each label on valid. train_counts: [L], training
            products of each label.

    Returns:
        [L], float32, in (0, 1).
    """
    thresholds = attribute_thresholds(scores, label_rows, positive, num_positives)
    own = num_positives >= MIN_POSITIVES
    band_of = np.searchsorted(np.array(_BANDS), train_counts, side="right") - 1
    pending = np.zeros(len(train_counts), dtype=np.bool_)
    for band in range(len(_BANDS)):
        pending |= (band_of == band) & ~own
        if num_positives[pending].sum() >= _MIN_PAIRS:
            thresholds[pending] = _best(pending, scores, label_rows, positive, num_positives)
            pending[:] = False
    return thresholds


def _best(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float32],
    label_rows: NDArray[np.int64],
    positive: NDArray[np.bool_],
    num_positives: NDArray[np.int64],
) -> float:
    """The best cut for the labels [L] of a band."""
    of_band = labels[label_rows]
    # Most pairs are far below the lowest cut.
    of_band &= scores >= _CUTS[0]
    scores, label_rows, positive = scores[of_band], label_rows[of_band], positive[of_band]
    wanted = np.where(labels, num_positives, 0)
    seen = wanted > 0
    found = []
    for cut in _CUTS:
        taken = scores >= cut
        predicted = np.bincount(label_rows[taken], minlength=len(labels))
        hits = np.bincount(label_rows[taken & positive], minlength=len(labels))
        f1 = 2 * hits[seen] / (predicted[seen] + wanted[seen])
        micro = 2 * int(hits.sum()) / (int(predicted.sum()) + int(wanted.sum()))
        found.append(float(f1.mean()) + micro)
    return float(_CUTS[int(np.argmax(found))])
