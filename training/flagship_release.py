"""From a trained flagship to a release: temperatures, thresholds, measures, examples, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.flagship import FlagshipConfig, predictor_of
from models.flagship_preparer import FlagshipPreparer
from models.labels import LabelSpace
from models.members import joined
from models.product import Product
from models.release_writing import write_release
from models.self_check import make_examples
from models.taxonomy import Taxonomy
from models.tokens import TOKENIZER_FILE
from training.abstention import CALIBRATION_FILE, Abstention, Promise, fit_abstention
from training.calibrate import attribute_thresholds, fit_rivals, fit_temperatures
from training.flagship_learner import FlagshipLearner, Scored, positive_labels
from training.label_thresholds import banded_thresholds

__all__ = ["Fitted", "publish"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network with everything that a release says about it."""

    config: FlagshipConfig
    preparer: FlagshipPreparer
    learner: FlagshipLearner
    taxonomy: Taxonomy
    categories: LabelSpace
    labels: LabelSpace


def publish(
    fitted: Fitted,
    out: Path,
    *,
    name: str,
    version: str,
    promise: Promise,
    examples: Sequence[Product],
    epochs: int,
    bands: bool = False,
    tables: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Calibrate on valid and write the release.

    Args:
        promise: what the thresholds of categories keep.
        examples: products of its self-check.
        bands: labels share a threshold with those trained alike often.
        tables: dtype of the bags' tables, which the learner's network has from here on.

    Returns:
        Measures on valid, as served: masks by the predicted category, thresholds applied. They
        flatter a little: the thresholds were set on the same products.
    """
    learner = fitted.learner
    # Before anything is measured: what is calibrated is what is served.
    for bag in learner.net.mixer.bags:
        bag.to(tables)
    scored = learner.score(learner.valid_split)
    found, category_thresholds, best, metrics = _categories(fitted, scored, promise)
    label_thresholds, attribute_metrics = _attributes(fitted, scored, best, bands=bands)
    metrics |= attribute_metrics | {"epochs": float(epochs), "products": float(len(best))}
    weights = {
        key: tensor.detach().cpu().contiguous() for key, tensor in learner.net.state_dict().items()
    }
    predictor = predictor_of(
        learner.net,
        fitted.preparer,
        categories=fitted.categories,
        labels=fitted.labels if len(fitted.labels) else None,
        category_thresholds=category_thresholds,
        label_thresholds=label_thresholds,
        taxonomy=fitted.taxonomy,
    )
    tokenizer = fitted.preparer.tokenizer
    write_release(
        out,
        name=name,
        version=version,
        architecture="flagship",
        config=fitted.config.to_json(),
        taxonomy=fitted.taxonomy,
        categories=fitted.categories,
        labels=fitted.labels if len(fitted.labels) else None,
        category_thresholds=category_thresholds,
        label_thresholds=label_thresholds if len(fitted.labels) else None,
        weights=weights,
        files={CALIBRATION_FILE: found.to_json()}
        | ({} if tokenizer is None else {TOKENIZER_FILE: tokenizer.serialised}),
        examples=make_examples(predictor, examples, fitted.taxonomy, learner.device),
        metrics=metrics,
    )
    return metrics


def _categories(
    fitted: Fitted, scored: Scored, promise: Promise
) -> tuple[Abstention, NDArray[np.float32], NDArray[np.int64], dict[str, float]]:
    """Fit temperatures (into the head) and thresholds; best category row of each product."""
    learner = fitted.learner
    head = learner.net.category
    if head is None or scored.department_logits is None or scored.leaf_logits is None:
        raise ValueError("a flagship has a category head")
    true = learner.valid_split.targets.leaves
    on_cpu = head.cpu()
    on_cpu.temperatures.copy_(
        fit_temperatures(
            on_cpu, scored.department_logits, scored.leaf_logits, torch.from_numpy(true)
        )
    )
    found = on_cpu.best(joined(scored.features), 1)
    head.to(learner.device)
    best, scores = found.rows[:, 0], found.scores[:, 0]
    departments = [fitted.taxonomy.department_of(leaf) for leaf in fitted.categories.ids]
    abstention = fit_abstention(
        scores, best, true, departments, learner.valid_split.targets.texts, promise
    )
    thresholds = abstention.of_leaves(departments)
    assigned = scores >= thresholds[best]
    right = best == true
    return (
        abstention,
        thresholds,
        best,
        {
            "category_accuracy": float(right.mean()),
            "coverage": float(assigned.mean()),
            "assigned_accuracy": float(right[assigned].mean()) if assigned.any() else 0.0,
            "department_temperature": float(on_cpu.temperatures[0]),
            "leaf_temperature": float(on_cpu.temperatures[1]),
        },
    )


def _attributes(
    fitted: Fitted, scored: Scored, best: NDArray[np.int64], *, bands: bool
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Thresholds under the masks of the predicted categories, as they are served."""
    num_labels = len(fitted.labels)
    if num_labels == 0:
        return np.empty(0, dtype=np.float32), {}
    learner = fitted.learner
    targets = learner.valid_split.targets
    owners, rows, scores = learner.label_scores(scored.features, best)
    positive = positive_labels(owners, rows, targets, num_labels)
    if learner.net.rivals is not None:
        rivals = learner.net.rivals.cpu()
        on_cpu = torch.from_numpy(scores), torch.from_numpy(owners), torch.from_numpy(rows)
        fit_rivals(rivals, *on_cpu, positive)
        scores = rivals(*on_cpu).numpy()
        rivals.to(learner.device)
    num_positives = np.bincount(
        np.asarray(targets.positives.values, dtype=np.int64), minlength=num_labels
    )
    if bands:
        trained = learner.train_split.targets.positives.values
        counts = np.bincount(np.asarray(trained, dtype=np.int64), minlength=num_labels)
        thresholds = banded_thresholds(scores, rows, positive, num_positives, counts)
    else:
        thresholds = attribute_thresholds(scores, rows, positive, num_positives)
    taken = scores >= thresholds[rows]
    total = int(taken.sum()) + int(num_positives.sum())
    return thresholds, {"attribute_micro_f1": 2 * int((taken & positive).sum()) / max(1, total)}
