"""Accuracy against coverage as a page, with plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.coverage import Coverage, Kept
from training.plots import plain, plot_accuracy_coverage
from training.report import Page, Section

__all__ = ["write_coverage"]

_COLOUR = "#31688e"
_MOST_BARS = 40


def write_coverage(found: Coverage, out: Path, about: Sequence[str] = ()) -> Path:
    """``<data>-coverage.md``, ``.html``, ``.json``, ``.png`` and ``-departments.png`` in ``out``.

    Args:
        about: lines for people: hardware, how the release was trained.

    Returns:
        The Markdown file.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{found.data}-coverage"
    curve, departments = out / f"{stem}.png", out / f"{stem}-departments.png"
    shares, accuracies = np.array(found.curve).T
    plot_accuracy_coverage(
        curve, shares, accuracies, (found.served.coverage, found.served.accuracy)
    )
    _plot_departments(found, departments)
    page = Page(
        f"Accuracy against coverage: {found.data}",
        [*(f"- {line}" for line in about), *([""] if about else []), *_verdicts(found)],
        f"sortiment-train coverage --release RELEASE --data {found.data} --split {found.split}"
        + ("" if found.limit is None else f" --limit {found.limit}")
        + " --out DIR",
        [_rules(found), _table(found)],
        [curve, departments],
    )
    page.write(out, stem, {**found.to_json(), "about": list(about)})
    return out / f"{stem}.md"


def _verdicts(found: Coverage) -> list[str]:
    rules = {"One threshold for all products": found.one_threshold, "As served": found.served}
    lines = [
        f"{rule}: {_per_cent(kept.accuracy)} of the assigned are right, "
        f"{100 * (kept.accuracy - found.target):+.2f} points from the target of "
        f"{_per_cent(found.target)}."
        for rule, kept in rules.items()
        if kept is not None
    ]
    counts: dict[str, int] = {}
    for department in found.departments:
        counts[department.verdict] = counts.get(department.verdict, 0) + 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines.append(f"Departments by their served thresholds: {said}.")
    return lines


def _rules(found: Coverage) -> Section:
    rows = []
    if found.one_threshold is not None:
        name = f"one threshold for all ({found.threshold:.4f})"
        rows.append([name, *_cells(found.one_threshold)])
    rows.append(["as served", *_cells(found.served)])
    if found.shared is not None:
        name = f"as served, small departments together ({found.shared.products:,} products)"
        rows.append([name, *_cells(found.shared)])
    return Section(
        f"All {found.products:,} products",
        ["rule", "assigned", "coverage", "accuracy among them", "95 % interval"],
        rows,
        f"Category accuracy without abstention {_per_cent(found.category_accuracy)}, calibration "
        f"error of the score {found.calibration_error:.4f}. Thresholds were fitted on valid"
        f"{_how_surely(found.promised)}. In hindsight one threshold could have assigned "
        f"{_per_cent(found.best_coverage)} of these products at {_per_cent(found.target)}.",
    )


def _how_surely(promised: tuple[float, float] | None) -> str:
    if promised is None:
        return ""
    target, confidence = promised
    return f", to reach {_per_cent(target)} with {100 * confidence:g} % confidence"


def _table(found: Coverage) -> Section:
    rows = []
    for each in found.departments:
        source = {True: "own", False: "shared", None: "not said"}[each.own]
        rows.append(
            [
                each.name,
                _count(each.valid_products),
                _count(each.valid_texts),
                source,
                f"{each.threshold:.4f}",
                f"{each.kept.products:,}",
                _per_cent(each.accuracy),
                *_cells(each.kept),
                each.verdict,
            ]
        )
    columns = ["predicted department", "valid", "its texts", "threshold is", "threshold"]
    columns += ["products"]
    columns += ["accuracy of all", "assigned", "coverage", "accuracy", "95 % interval", "target"]
    note = (
        "Kept: the target lies in the realised accuracy's 95 % interval (Wilson; products of one "
        "text are right or wrong together, and say as much less as they are alike). A department "
        "whose accuracy is above the target with all of its products assigned cannot come down to "
        "it. A shared threshold is to keep the target for the small departments together."
    )
    return Section("By department, as served", columns, rows, note)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _cells(kept: Kept) -> list[str]:
    low, high = kept.interval
    return [
        f"{kept.assigned:,}",
        _per_cent(kept.coverage),
        _per_cent(kept.accuracy) if kept.assigned else "-",
        f"{_per_cent(low)} to {_per_cent(high)}" if kept.assigned else "-",
    ]


def _plot_departments(found: Coverage, path: Path) -> None:
    """Realised accuracy of each department with its interval, against the target."""
    shown = [each for each in found.departments if each.kept.assigned][:_MOST_BARS][::-1]
    figure = Figure(figsize=(7, 1.5 + 0.28 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(shown))
    accuracy = np.array([each.kept.accuracy for each in shown])
    reach = np.array([each.kept.interval for each in shown]).reshape(-1, 2)
    errors = np.abs(reach - accuracy[:, None]).T
    axes.errorbar(accuracy, places, xerr=errors, fmt="o", color=_COLOUR, markersize=4)
    axes.axvline(found.target, color="grey", linewidth=0.8)
    axes.set_yticks(places, [f"{plain(each.name)} ({each.kept.assigned:,})" for each in shown])
    axes.set(xlabel="accuracy among the assigned, 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120)


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f} %"
