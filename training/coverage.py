"""What a release's thresholds keep of their promise on new data.

dhpc-amazon (E.1) gives coverage at an accuracy of 90 %; here the realised accuracy stands beside
it, with its interval, for all products and for each predicted department.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import SortimentError
from models.loading import load_predictor
from models.release import Release, read_release
from training import metrics
from training.abstention import Abstention, read_abstention
from training.data import DataSet
from training.predictions import predict_products
from training.same_texts import text_keys

__all__ = ["Coverage", "DepartmentCoverage", "Kept", "coverage"]

# Shares of the products that the curve is told at.
_CURVE_POINTS = 100
_TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Kept:
    """What a rule assigns: ``accuracy`` is among the assigned, with its 95 % interval: products of
    one text count as what they say together."""

    products: int
    assigned: int
    coverage: float
    accuracy: float
    interval: tuple[float, float]

    @classmethod
    def of(
        cls, right: NDArray[np.bool_], assigned: NDArray[np.bool_], texts: NDArray[np.int64]
    ) -> Kept:
        """From [N] and [N], bool, and the products' texts, [N]."""
        share, accuracy = metrics.accuracy_where(right, assigned)
        interval = metrics.share_interval(right[assigned], texts[assigned])
        return cls(len(right), int(assigned.sum()), share, accuracy, interval)


@dataclass(frozen=True, slots=True)
class DepartmentCoverage:
    """What is kept among the products that are predicted to be of a department.

    Attributes:
        accuracy: of all of them, unthresholded.
        threshold: the served one; the lowest, where leaves of the department differ.
        own: by ``training.abstention``; None where the release does not say.
        valid_products, valid_texts: that it was fitted on; None likewise.
        verdict: ``kept``: the target lies in the interval. ``above, all assigned``: the accuracy is
            above it and nothing is left to assign. ``above``, ``below``. ``nothing assigned``.
    """

    id: str
    name: str
    accuracy: float
    threshold: float
    own: bool | None
    valid_products: int | None
    valid_texts: int | None
    kept: Kept
    verdict: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Accuracy against coverage of a release on a split.

    Attributes:
        limit: only the first so many products were asked for.
        promised: the release's own target, and the confidence with which its thresholds reach it;
            None where it does not say.
        one_threshold: one threshold for all, the paper's rule; None where the release lacks it.
        served: the release's thresholds as the worker obeys them.
        shared: likewise, the departments that share a threshold, together; None where none does.
        best_coverage: the greatest share of these very products that one threshold could assign
            at the target: no rule that has not seen them can know it.
        curve: (coverage, accuracy) at every hundredth.
    """

    release: str
    data: str
    split: str
    limit: int | None
    products: int
    target: float
    promised: tuple[float, float] | None
    category_accuracy: float
    calibration_error: float
    threshold: float | None
    one_threshold: Kept | None
    served: Kept
    shared: Kept | None
    departments: tuple[DepartmentCoverage, ...]
    best_coverage: float
    curve: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """As ``orjson`` takes it."""
        return asdict(self)


def coverage(
    release_dir: Path,
    data_dir: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    target: float | None = None,
    device: torch.device | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Coverage:
    """Measure the thresholds of a release on the labelled products of a split.

    Args:
        limit: the first so many products; None: all.
        target: None: the release's own, 0.9 where it has none.
        device: None: the CPU.
        advance: called with the number of products that are done.

    Raises:
        ReleaseError, ModelError: the release cannot be used. SortimentError: it has no category
            model. DataError: nothing to measure on.
    """
    device = device or torch.device("cpu")
    release = read_release(release_dir)
    predictor = load_predictor(release, device, "auto")
    if predictor.category is None or release.categories is None:
        raise SortimentError(f"release {release.id} has no category model: nothing is assigned")
    items = DataSet(data_dir).listed(split, limit)
    # Labels are no matter here, and take most of the time.
    found = predict_products(
        release, replace(predictor, attribute=None), items, device, advance=advance
    )
    categories = found.categories or []
    right = found.right([item.category for item in items])
    texts = text_keys(item.product for item in items)
    said = read_abstention(release)
    if target is None:
        target = _TARGET if said is None else said.target
    shares, accuracies = metrics.accuracy_coverage(found.scores, right)
    reached = np.flatnonzero(accuracies >= target)
    places = np.unique(np.searchsorted(shares, np.linspace(0, 1, _CURVE_POINTS)))
    return Coverage(
        release=release.id,
        data=data_dir.name,
        split=split,
        limit=limit,
        products=len(items),
        target=target,
        promised=None if said is None else (said.target, said.confidence),
        category_accuracy=float(right.mean()),
        calibration_error=metrics.reliability(found.scores, right).calibration_error,
        threshold=None if said is None else said.overall,
        one_threshold=None if said is None else Kept.of(right, found.scores >= said.overall, texts),
        served=Kept.of(right, found.assigned, texts),
        shared=_shared(release, said, categories, right, found.assigned, texts),
        departments=_departments(release, said, categories, right, found.assigned, texts, target),
        best_coverage=float(shares[reached[-1]]) if len(reached) else 0.0,
        curve=tuple((float(shares[each]), float(accuracies[each])) for each in places),
    )


def _departments(
    release: Release,
    said: Abstention | None,
    categories: Sequence[str],
    right: NDArray[np.bool_],
    assigned: NDArray[np.bool_],
    texts: NDArray[np.int64],
    target: float,
) -> tuple[DepartmentCoverage, ...]:
    """Departments that any product is predicted to be of, those with most products first."""
    taxonomy = release.taxonomy
    predicted = np.array([taxonomy.department_of(each) for each in categories])
    served: dict[str, float] = {}
    if release.categories is not None and release.category_thresholds is not None:
        for leaf, threshold in zip(
            release.categories.ids, release.category_thresholds.tolist(), strict=True
        ):
            department = taxonomy.department_of(leaf)
            served[department] = min(served.get(department, 1.0), threshold)
    found = []
    for department in dict.fromkeys(predicted.tolist()):
        of = predicted == department
        kept = Kept.of(right[of], assigned[of], texts[of])
        fitted = None if said is None else said.departments.get(department)
        found.append(
            DepartmentCoverage(
                department,
                taxonomy.categories[department].name,
                float(right[of].mean()),
                served[department],
                None if fitted is None else fitted.own,
                None if fitted is None else fitted.products,
                None if fitted is None else fitted.texts,
                kept,
                _verdict(kept, target),
            )
        )
    return tuple(sorted(found, key=lambda each: -each.kept.products))


def _shared(
    release: Release,
    said: Abstention | None,
    categories: Sequence[str],
    right: NDArray[np.bool_],
    assigned: NDArray[np.bool_],
    texts: NDArray[np.int64],
) -> Kept | None:
    if said is None:
        return None
    sharing = {name for name, each in said.departments.items() if not each.own}
    of = np.array([release.taxonomy.department_of(each) in sharing for each in categories])
    return Kept.of(right[of], assigned[of], texts[of]) if of.any() else None


def _verdict(kept: Kept, target: float) -> str:
    low, high = kept.interval
    if kept.assigned == 0:
        return "nothing assigned"
    if low <= target <= high:
        return "kept"
    if high < target:
        return "below"
    return "above, all assigned" if kept.assigned == kept.products else "above"
