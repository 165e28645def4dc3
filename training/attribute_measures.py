"""The one rule by which every attribute row is measured (ave-label-masking, 5.2).

A product's category is given and labels that are irrelevant to it are dropped, whatever the model.
Micro figures count every (product, label) pair of the split; macro figures are means over the
labels seen both in training and in the split. A true label that no model could give (unknown to
the taxonomy or irrelevant to the category) counts as missed.

Legend: N products, L labels, M scored (product, label) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.loading import load_predictor
from models.predict import CompiledMasks, predict
from models.predictor import LabelScores
from models.release import Release
from training.data import LabelledProduct
from training.encoded_batches import EncodedBatches
from training.predictions import plan

__all__ = ["FrequencyGroup", "attribute_measures", "scored_labels"]

_WINDOW = 4096
_KS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class FrequencyGroup:
    """Labels that occur in training ``least`` times or more, and less than the group before."""

    name: str
    least: int


def scored_labels(
    release: Release,
    items: Sequence[LabelledProduct],
    categories: Sequence[str],
    device: torch.device,
    *,
    encoded: EncodedBatches | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> LabelScores:
    """Every relevant label of N products with its score, whatever the release's thresholds.

    Args:
        categories: whose relevant labels are scored, for each product; one that the taxonomy
            lacks has none.
        encoded: what the releases before this one have encoded of the same products.

    Returns:
        CSR, within a product best first.
    """
    if release.labels is None or release.label_thresholds is None:
        raise ValueError(f"release {release.id} has no attribute model")
    nothing = np.zeros_like(release.label_thresholds)
    predictor = load_predictor(replace(release, label_thresholds=nothing), device, "float32")
    if encoded is not None and predictor.attribute is not None:
        predictor.attribute.encoder = encoded.around(release, predictor.attribute.encoder)
    masks = CompiledMasks(release.taxonomy, release.labels, device)
    position = {each: row for row, each in enumerate(release.taxonomy.categories)}
    given = np.array([position.get(each, -1) for each in categories], dtype=np.int64)
    found: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    for first in range(0, len(items), _WINDOW):
        window = items[first : first + _WINDOW]
        prepared = predictor.preparer.prepare([item.product for item in window])
        for rows in plan(prepared.costs):
            _, labels = predict(
                replace(predictor, category=None),
                prepared.take(rows),
                masks,
                np.empty(0, dtype=np.int64),
                top_k=1,
                given_rows=given[rows + first],
            )
            if labels is None:
                raise ValueError(f"release {release.id} scored no labels")
            for place, row in enumerate(rows.tolist()):
                part = slice(int(labels.indptr[place]), int(labels.indptr[place + 1]))
                found[row + first] = labels.rows[part], labels.scores[part]
            advance(len(rows))
    parts = [found[row] for row in range(len(items))]
    indptr = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum([len(rows) for rows, _ in parts], out=indptr[1:])
    return LabelScores(
        indptr,
        np.concatenate([rows for rows, _ in parts]),
        np.concatenate([scores for _, scores in parts]),
    )


def attribute_measures(
    found: LabelScores,
    true: Sequence[Sequence[int]],
    thresholds: NDArray[np.float32],
    train_counts: NDArray[np.int64],
    groups: Sequence[FrequencyGroup],
) -> dict[str, float]:
    """Precision, recall and F1, micro and macro, P@k, and F1 by how often labels are trained.

    ``macro_f1`` is the mean of the labels' F1; ``macro_f1_of_means`` the harmonic mean of macro
    precision and recall, which is what the paper's Table 4 prints; both of each group too. P@k is
    the mean, over products with a true label, of hits among the k best labels over k; no threshold
    cuts them.

    Args:
        found: every relevant label's score, within a product best first.
        true: each product's label rows, each once; -1 for one that the label space lacks.
        thresholds: [L]. train_counts: [L], training products of each label.
        groups: from the most frequent on.
    """
    num_labels = len(thresholds)
    owner = np.repeat(np.arange(len(true)), np.diff(found.indptr))
    keys = owner * num_labels + found.rows
    flat = np.array([row for rows in true for row in rows], dtype=np.int64)
    flat_owner = np.repeat(np.arange(len(true)), [len(rows) for rows in true])
    known = flat >= 0
    hit = np.isin(keys, flat_owner[known] * num_labels + flat[known])
    taken = found.scores >= thresholds[found.rows]
    hits = np.bincount(found.rows[taken & hit], minlength=num_labels)
    predicted = np.bincount(found.rows[taken], minlength=num_labels)
    wanted = np.bincount(flat[known], minlength=num_labels)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(wanted, 1)
    f1 = 2 * hits / np.maximum(predicted + wanted, 1)
    seen = (train_counts > 0) & (wanted > 0)
    measures = {
        "micro_precision": int(hits.sum()) / max(1, int(predicted.sum())),
        "micro_recall": int(hits.sum()) / max(1, len(flat)),
        "micro_f1": 2 * int(hits.sum()) / max(1, int(predicted.sum()) + len(flat)),
        "macro_precision": _mean(precision[seen]),
        "macro_recall": _mean(recall[seen]),
        "macro_f1": _mean(f1[seen]),
    }
    measures["macro_f1_of_means"] = _of_means(precision[seen], recall[seen])
    rank = np.arange(len(found.rows)) - found.indptr[owner]
    has_labels = np.array([len(rows) > 0 for rows in true], dtype=bool)
    for k in _KS:
        among = np.bincount(owner[hit & (rank < k)], minlength=len(true))
        measures[f"precision_at_{k}"] = _mean(among[has_labels] / k)
    below = np.inf
    for group in groups:
        of_group = seen & (train_counts >= group.least) & (train_counts < below)
        below = group.least
        total = int(predicted[of_group].sum() + wanted[of_group].sum())
        measures[f"{group.name}_labels"] = int(of_group.sum())
        measures[f"{group.name}_micro_f1"] = 2 * int(hits[of_group].sum()) / max(1, total)
        measures[f"{group.name}_macro_f1"] = _mean(f1[of_group])
        measures[f"{group.name}_macro_f1_of_means"] = _of_means(
            precision[of_group], recall[of_group]
        )
    return measures


def _of_means(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    both = _mean(precision), _mean(recall)
    return 2 * both[0] * both[1] / max(1e-12, sum(both))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
