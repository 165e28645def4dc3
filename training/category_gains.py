"""What one system gains over another on the same products, and whether that is more than chance.

Legend: N products.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.design_effect import design_effect
from training.metrics import by_score
from training.paired_bootstrap import Figures, Interval, intervals

__all__ = ["coverage_gain", "gain_of", "verdict"]

# 95 % of a normal distribution.
_Z = 1.96
_ROUNDS = 400


def gain_of(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], texts: NDArray[np.int64]
) -> tuple[float, float]:
    """Gain in accuracy over the same products, and half its 95 % interval, both in points.

    Args:
        ours, theirs: [N]. texts: [N], equal where the text is the same: its products count as
            what they say together.
    """
    difference = ours.astype(np.float64) - theirs.astype(np.float64)
    effective = len(difference) / design_effect(difference, texts)
    error = difference.std() / np.sqrt(max(1.0, effective))
    return 100 * float(difference.mean()), 100 * _Z * float(error)


def verdict(gain: float, half: float, paper: float | None) -> str:
    """What the interval leaves of a gain, and whether the paper's has the same sign."""
    if abs(gain) <= half:
        return "within noise"
    if not paper:
        return "gain" if gain > 0 else "loss"
    return "as the paper" if gain * paper > 0 else "against the paper"


def coverage_gain(
    ours: tuple[NDArray[np.float32], NDArray[np.bool_]],
    theirs: tuple[NDArray[np.float32], NDArray[np.bool_]],
    texts: NDArray[np.int64],
    target: float,
) -> Interval:
    """Gain in coverage at a target accuracy, as a share, by paired bootstrap.

    Args:
        ours, theirs: scores [N] and what is right [N], of the same products.
        texts: [N], equal where the text is the same.
    """
    one, other = (_coverage(*each, target) for each in (ours, theirs))
    return intervals(lambda of: one(of) - other(of), texts, rounds=_ROUNDS)[0]


def _coverage(scores: NDArray[np.float32], right: NDArray[np.bool_], target: float) -> Figures:
    """The largest share of products above a threshold that is right often enough, K = 1."""
    order, ends = by_score(scores)
    right = right[order]

    def measure(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = weights[order].cumsum()[ends]
        reached = np.flatnonzero((weights[order] * right).cumsum()[ends] >= target * counts)
        share: NDArray[np.float64] = counts[reached[-1:]].sum(keepdims=True) / counts[-1]
        return share

    return measure
