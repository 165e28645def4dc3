"""Temperatures and thresholds, fitted on valid.

Legend: N products, P departments, C leaves, L labels, M scored (product, label) pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.heads import CascadeHead

__all__ = ["abstention_thresholds", "attribute_thresholds", "fit_temperatures"]

# With fewer predictions on valid a leaf's own threshold would follow chance: at 50 the standard
# error of an accuracy of 0.9 is 0.04.
MIN_PREDICTIONS = 50
# With fewer positives on valid a label's best threshold says little of the next product.
MIN_POSITIVES = 20
# Scores on either side of an attribute threshold have at least this share of the pooled one:
# a label is never so sure or so unsure that valid could not be wrong about it.
_WIDEST = 3.0


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


def abstention_thresholds(
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    num_leaves: int,
    target: float,
) -> NDArray[np.float32]:
    """The lowest score from which on assignments to a leaf are right at least ``target`` often.

    A leaf that is predicted on valid fewer than ``MIN_PREDICTIONS`` times shares the pooled
    threshold with all such leaves. Where no score is high enough, the threshold lies above every
    score seen, at most 1.

    Args:
        scores: [N], of the best leaf; rows: [N], that leaf; true_rows: [N].

    Returns:
        [C], float32, in [0, 1].
    """
    right = rows == true_rows
    counts = np.bincount(rows, minlength=num_leaves)
    own = np.flatnonzero(counts >= MIN_PREDICTIONS)
    pooled = ~np.isin(rows, own)
    if not pooled.any():
        pooled[:] = True
    thresholds = np.full(
        num_leaves, _lowest_right(scores[pooled], right[pooled], target), dtype=np.float32
    )
    for leaf in own:
        of_leaf = rows == leaf
        thresholds[leaf] = _lowest_right(scores[of_leaf], right[of_leaf], target)
    return thresholds


def _lowest_right(scores: NDArray[np.float32], right: NDArray[np.bool_], target: float) -> float:
    if len(scores) == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    # A threshold takes all products of its score: only the last of equal ones is a cut.
    cut = np.append(scores[1:] != scores[:-1], True)
    good = np.flatnonzero((accuracy >= target) & cut)
    if len(good) == 0:
        return float(min(np.nextafter(scores[0], np.float32(2)), np.float32(1)))
    return 0.0 if good[-1] == len(scores) - 1 else float(scores[good[-1]])


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
    for label in np.flatnonzero(num_positives >= MIN_POSITIVES):
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
