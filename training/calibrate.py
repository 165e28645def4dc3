"""Temperatures, calibration and thresholds of labels, fitted on valid.

Thresholds of categories are in ``training.abstention``.

Legend: N products, P departments, C leaves, L labels, M scored (product, label) pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.calibration import HIGHEST
from models.heads import CascadeHead
from models.rivals import Rivals

__all__ = ["attribute_thresholds", "fit_line", "fit_rivals", "fit_temperatures"]

# With fewer positives on valid a label's best threshold says little of the next product.
_MIN_POSITIVES = 20
# Scores on either side of an attribute threshold have at least this share of the pooled one:
# a label is never so sure or so unsure that valid could not be wrong about it.
_WIDEST = 3.0
# Scores of labels below this are not looked at where lines are fitted.
_NEAR = 1e-3
# Keeps logarithms finite.
_LOWEST = 1e-7


def fit_temperatures(
    head: CascadeHead, department_logits: Tensor, leaf_logits: Tensor, leaf_rows: Tensor
) -> Tensor:
    """Temperatures [2] that make the true leaves most likely (Guo et al. 2017, for two factors).

    Args:
        department_logits: [N, P]; leaf_logits: [N, C]; leaf_rows: [N], int64.

    Returns:
        Temperatures of departments and of leaves, each in [0.05, 20]; ones for N = 0.
    """
    if len(leaf_rows) == 0:
        return torch.ones(2)
    logs = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = head.log_scores_from(department_logits, leaf_logits, logs.exp())
        loss = torch.nn.functional.nll_loss(scores, leaf_rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return logs.detach().exp().clamp(0.05, 20.0)


def fit_line(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The line of ``models.calibration.calibrated``, by logistic regression.

    Args:
        scores: [N], in [0, 1]; right: [N].

    Returns:
        a > 0 and c; None where all or none are right, or higher scores are not more often so.
    """
    if not right.any() or right.all():
        return None
    inside = np.clip(scores.astype(np.float64), _LOWEST, HIGHEST)
    fitted = LogisticRegression(max_iter=1000).fit(np.log(inside / (1 - inside))[:, None], right)
    slope = float(fitted.coef_[0, 0])
    return (slope, float(fitted.intercept_[0])) if slope > 0 else None


def fit_rivals(
    rivals: Rivals, scores: Tensor, owners: Tensor, labels: Tensor, positive: NDArray[np.bool_]
) -> None:
    """Fit the lines of ``models.rivals``, each by logistic regression; the head's scores before.

    A line stays as it is where fewer than 20 of its pairs are true, or where higher scores are not
    more often so; it leaves the rivals out where they speak for a label.

    Args:
        scores, owners, labels: [M] each, as ``Rivals.evidence``. positive: [M], whether true.
    """
    logits, others = (part.numpy() for part in rivals.evidence(scores, owners, labels))
    has_rivals = (rivals.attribute_of[labels] >= 0).numpy()
    # What is all but excluded is most of the pairs, and would say where the line goes elsewhere.
    near = scores.numpy() >= _NEAR
    for row, of_line in enumerate((~has_rivals & near, has_rivals & near)):
        right = positive[of_line]
        if right.sum() < _MIN_POSITIVES or right.all():
            continue
        slope, against, shift = _line(np.stack([logits, -others], axis=1)[of_line], right)
        if against < 0:
            slope, _, shift = _line(logits[of_line, None], right)
            against = 0.0
        if slope > 0:
            rivals.lines[row] = torch.tensor([slope, against, shift])


def _line(given: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Weights of one or two columns (the second 0 for one), and the constant."""
    fitted = LogisticRegression(max_iter=1000).fit(given, right)
    weights = [*fitted.coef_[0].tolist(), 0.0]
    return weights[0], weights[1], float(fitted.intercept_[0])


def attribute_thresholds(
    scores: NDArray[np.float32],
    label_rows: NDArray[np.int64],
    positive: NDArray[np.bool_],
    num_positives: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Thresholds that make F1 highest: a label's own where valid says enough, else the pooled one.

    The pooled threshold makes the micro F1 of all labels highest; a label's own stays within a
    factor of three of it (in odds).

    Args:
        scores: [M], of the labels that were scored; label_rows: [M], int64; positive: [M].
        num_positives: [L], true positives of each label, the unscored ones (whose category was
            not predicted) included.

    Returns:
        [L], float32, in (0, 1).
    """
    num_labels = len(num_positives)
    order = np.argsort(-scores, kind="stable")
    pooled = _best_cut(scores[order], positive[order], int(num_positives.sum()))
    thresholds = np.full(num_labels, pooled, dtype=np.float32)
    order = np.lexsort((-scores, label_rows))
    ends = np.searchsorted(label_rows[order], np.arange(num_labels + 1))
    odds = pooled / (1 - pooled)
    lowest, highest = odds / _WIDEST, odds * _WIDEST
    for label in np.flatnonzero(num_positives >= _MIN_POSITIVES):
        of_label = order[ends[label] : ends[label + 1]]
        cut = _best_cut(scores[of_label], positive[of_label], int(num_positives[label]))
        thresholds[label] = np.clip(cut, lowest / (1 + lowest), highest / (1 + highest))
    return thresholds


def _best_cut(
    scores: NDArray[np.float32], positive: NDArray[np.bool_], num_positives: int
) -> float:
    """The score, half-way to the next lower one, from which on F1 is highest; 0.5 for none."""
    if len(scores) == 0 or num_positives == 0:
        return 0.5
    hits = np.cumsum(positive)
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + num_positives)
    f1[:-1][scores[1:] == scores[:-1]] = -1
    best = int(f1.argmax())
    below = float(scores[best + 1]) if best + 1 < len(scores) else 0.0
    return min(max((float(scores[best]) + below) / 2, 1e-4), 1 - 1e-4)
