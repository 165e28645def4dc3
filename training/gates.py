"""Whether a refreshed release may replace the one that it came from: gates on the same products.

Legend: N held-out products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.design_effect import text_rows

__all__ = ["Answers", "GateResult", "Gates", "judge", "worse_by_chance"]

# A share that is just what is allowed is allowed, whatever 0.8 - 0.1 is in binary.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """By how much a refreshed release may be worse, as differences of shares.

    Attributes:
        overall: category accuracy of all held-out products (the share whose labels are all right,
            where there is no category model).
        department: the same of the products of a true department; a greater fall counts
            only where chance makes it less often than ``significance``: few texts vary.
        calibration: rise of the calibration error, and fall of the accuracy among what is assigned
            below the target or the former one, whichever is lower.
        coverage: fall of the share that is assigned.
        attributes: micro F1 of attributes, masked by the predicted category (by the true one where
            there is no category model).
        significance: of the one-sided exact test by department, divided by their number.
    """

    overall: float = 0.0
    department: float = 0.01
    calibration: float = 0.01
    coverage: float = 0.1
    attributes: float = 0.005
    significance: float = 0.05


@dataclass(frozen=True, slots=True)
class Answers:
    """What a release answers to the N products.

    Attributes:
        right: [N], the best category is the true one; without a category model all labels are.
        scores: [N], of the best category. assigned: [N]. None without a category model.
        attribute_f1: micro; None without an attribute model.
    """

    right: NDArray[np.bool_]
    scores: NDArray[np.float32] | None
    assigned: NDArray[np.bool_] | None
    attribute_f1: float | None

    @property
    def what(self) -> str:
        """What the mean of ``right`` is."""
        return "exact label sets" if self.scores is None else "category accuracy"


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate: both releases' figure, the worst that the new one may have, and the products."""

    gate: str
    old: float
    new: float
    worst: float
    products: int
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.gate}: {self.old:.4f} before, {self.new:.4f} now, {self.worst:.4f} is allowed, "
            f"{self.products:,} products{note}"
        )


def judge(
    old: Answers,
    new: Answers,
    departments: Sequence[str],
    texts: NDArray[np.int64],
    target: float,
    gates: Gates,
) -> list[GateResult]:
    """Every gate, overall first; those of calibration where both releases have a category model.

    Args:
        departments: [N], name of each product's true department.
        texts: [N], equal where the text is the same.
        target: accuracy that is wanted among what is assigned.
    """
    count = len(old.right)
    before, now = float(old.right.mean()), float(new.right.mean())
    results = [_at_least(new.what, before, now, before - gates.overall, count)]
    names = np.array(departments)
    distinct = sorted(set(departments))
    for name in distinct:
        of = names == name
        rights = old.right[of], new.right[of]
        results.append(_department(name, *rights, texts[of], len(distinct), gates))
    results += _calibration(old, new, target, gates)
    if old.attribute_f1 is not None and new.attribute_f1 is not None:
        worst = old.attribute_f1 - gates.attributes
        results.append(
            _at_least("attribute micro F1", old.attribute_f1, new.attribute_f1, worst, count)
        )
    return results


def _calibration(old: Answers, new: Answers, target: float, gates: Gates) -> list[GateResult]:
    if old.scores is None or new.scores is None or old.assigned is None or new.assigned is None:
        return []
    error = metrics.reliability(old.scores, old.right).calibration_error
    error_now = metrics.reliability(new.scores, new.right).calibration_error
    worst = error + gates.calibration
    coverage, kept = metrics.accuracy_where(old.right, old.assigned)
    coverage_now, kept_now = metrics.accuracy_where(new.right, new.assigned)
    count = len(new.right)
    results = [
        GateResult(
            "calibration error",
            error,
            error_now,
            worst,
            count,
            passed=error_now <= worst + _ROUNDING,
        ),
        _at_least("share assigned", coverage, coverage_now, coverage - gates.coverage, count),
    ]
    num_assigned = int(new.assigned.sum())
    if num_assigned:
        # Where nothing was assigned there was no accuracy to fall from.
        wanted = min(target, kept) if coverage else target
        note = "" if coverage else "nothing was assigned before"
        results.append(
            _at_least(
                "accuracy among the assigned",
                kept,
                kept_now,
                wanted - gates.calibration,
                num_assigned,
                note,
            )
        )
    return results


def _at_least(
    gate: str, old: float, new: float, worst: float, products: int, note: str = ""
) -> GateResult:
    return GateResult(gate, old, new, worst, products, passed=new >= worst - _ROUNDING, note=note)


def _department(
    name: str,
    old: NDArray[np.bool_],
    new: NDArray[np.bool_],
    texts: NDArray[np.int64],
    num_departments: int,
    gates: Gates,
) -> GateResult:
    before, now = float(old.mean()), float(new.mean())
    worst = before - gates.department
    if now >= worst - _ROUNDING:
        return GateResult(f"department {name}", before, now, worst, len(old), passed=True)
    # Products of one text turn together.
    turned = np.bincount(text_rows(texts), new.astype(np.int64) - old).astype(np.int64)
    chance = worse_by_chance(turned)
    limit = gates.significance / num_departments
    return GateResult(
        f"department {name}",
        before,
        now,
        worst,
        len(old),
        passed=chance >= limit,
        note=f"{(turned < 0).sum():,} texts lost, {(turned > 0).sum():,} won: so much or more by "
        f"chance with probability {chance:.2g}, refused below {limit:.2g}",
    )


def worse_by_chance(turned: NDArray[np.int64]) -> float:
    """Probability of at least so great a loss, were a text's gain and loss as likely.

    The exact sign-flip test, one-sided: with one product to each text it is McNemar's.

    Args:
        turned: [T], products of each text that were wrong before and are right now, less those
            that were right and are wrong.
    """
    sizes, counts = np.unique(np.abs(turned[turned != 0]), return_counts=True)
    # How likely each number of products is to be of the texts that gain: a sum of independent
    # halves, by its characteristic function.
    places = np.arange(int((sizes * counts).sum()) + 1)
    found = np.ones(len(places), dtype=np.complex128)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        turns = places * size % len(places) / len(places)
        found *= ((1 + np.exp(-2j * np.pi * turns)) / 2) ** count
    likely = np.fft.ifft(found).real
    gained = int(turned[turned > 0].sum())
    return float(np.clip(likely[: gained + 1].sum(), 0.0, 1.0))
