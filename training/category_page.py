"""The page of a comparison of category systems: gains beside the paper's, coverage, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.category_gains import coverage_gain, gain_of, verdict
from training.metrics import accuracy_coverage
from training.paired_bootstrap import Interval
from training.report import Page, Section

__all__ = ["CategoryComparison", "RowResult", "write_category_page"]

_PARTS = (
    ("department", "Departments", "department_accuracy", "right_departments"),
    ("leaf", "Leaves, the true department given", "leaf_accuracy_true_department", "right_leaves"),
    ("category", "Leaves by the cascade", "category_accuracy", "right"),
)
_TARGET = 0.9
_MOST_POINTS = 2_000
_HEADS_ALONE = (
    "The encoder of these rows is frozen and shared, its states were computed once: a strategy "
    "acts on the heads alone, where the paper's act on the whole network. The DNN is trained whole."
)


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row on N products: its measures, and what it put right.

    Args:
        right_departments, right_leaves, right: [N], bool: the department; the leaf given the true
            department; the leaf by the cascade. scores: [N], of the cascade's leaf.
    """

    measures: Mapping[str, float]
    right_departments: NDArray[np.bool_]
    right_leaves: NDArray[np.bool_]
    right: NDArray[np.bool_]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryComparison:
    """What was measured.

    Attributes:
        rows: key, name, the key that its gains are over, and the paper's gains in points.
        results: by key.
        same: keys of rows that this recipe makes the system that they stand on.
        texts: [N], of the split's products, equal where the text is the same.
        heads_alone: the encoder was frozen.
    """

    about: str
    rows: Sequence[tuple[str, str, str | None, Mapping[str, float]]]
    same: frozenset[str]
    curves: Sequence[str]
    name: str
    data: str
    split: str
    texts: NDArray[np.int64]
    recipe: str
    results: Mapping[str, RowResult]
    command: str
    hardware: str
    notes: str
    heads_alone: bool


def write_category_page(found: CategoryComparison, out: Path) -> None:
    """Write ``<data>-<table>.md``, ``.html``, ``.json`` and a plot into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{found.data}-{found.name}"
    plots = []
    if any(key in found.results for key in found.curves):
        plots.append(_plot(found, out / f"{stem}-coverage.png"))
    page = Page(
        f"{found.name} on {found.data}",
        [
            found.about + ".",
            "",
            f"{len(found.texts):,} products of {found.split}, recipe `{found.recipe}`. Accuracies "
            "in per cent; gains in points over the row that is named, with 95 % intervals over the "
            "products' texts: `within noise` where the interval holds 0, else whether the sign is "
            "the paper's. The paper's gains are of its own data, one department's leaves among "
            "them, without intervals.",
            *(["", _HEADS_ALONE] if found.heads_alone else []),
        ],
        found.command,
        [*(_section(found, part) for part in _PARTS), _coverage(found), _sizes(found)],
        plots,
        found.hardware,
        found.notes,
    )
    page.write(out, stem, _json(found))


def _section(found: CategoryComparison, part: tuple[str, str, str, str]) -> Section:
    key, heading, measure, right = part
    lines = []
    for row, name, against, paper in found.rows:
        result = found.results[row]
        cells = [name, _per_cent(result.measures[measure]), "", "", "", ""]
        cells[4] = f"{paper[key]:+.2f}" if key in paper else ""
        if row in found.same:
            cells[5] = "the same system"
        elif against is not None and against in found.results:
            gain, half = gain_of(
                getattr(result, right), getattr(found.results[against], right), found.texts
            )
            cells[2:4] = [f"{gain:+.2f} ± {half:.2f}", against]
            cells[5] = verdict(gain, half, paper.get(key))
        lines.append(cells)
    return Section(heading, ["row", "accuracy", "gain", "over", "paper's gain", "so"], lines)


def _coverage(found: CategoryComparison) -> Section:
    lines = []
    for row, name, against, paper in found.rows:
        of = found.results[row].measures
        gain = ""
        if row in found.same:
            gain = "the same system"
        elif against is not None and against in found.results:
            of_gain = _coverage_gain(found, row, against)
            gain = "{:+.2f} ({:+.2f} to {:+.2f})".format(
                *(100 * each for each in (of_gain.figure, of_gain.low, of_gain.high))
            )
        lines.append(
            [
                name,
                _per_cent(of["coverage"]),
                _per_cent(of["assigned_accuracy"]),
                _per_cent(of["coverage_at_90"]),
                gain,
                f"{paper['coverage']:+.2f}" if "coverage" in paper else "",
                f"{of['calibration_error']:.3f}",
            ]
        )
    return Section(
        "Coverage at 90 % accuracy",
        [
            "row",
            "assigned",
            "right of these",
            f"at 90 % on {found.split}",
            "gain",
            "paper's gain",
            "calibration error",
        ],
        lines,
        f"Assigned is what lies above the release's threshold, which valid set; at 90 % on "
        f"{found.split} is the share that a threshold set on {found.split} itself would assign, "
        "as the paper's comparison has it; its gain has a 95 % interval by paired bootstrap.",
    )


def _coverage_gain(found: CategoryComparison, row: str, against: str) -> Interval:
    ours, theirs = (found.results[key] for key in (row, against))
    return coverage_gain(
        (ours.scores, ours.right), (theirs.scores, theirs.right), found.texts, _TARGET
    )


def _sizes(found: CategoryComparison) -> Section:
    lines = []
    for row, name, _, paper in found.rows:
        of = found.results[row].measures
        lines.append(
            [
                name,
                _millions(of["body_parameters"]),
                f"{paper['parameters']:.0f}" if "parameters" in paper else "",
                _millions(of["parameters"]),
                f"{of['category_macro_f1']:.4f}",
                f"{of['epochs']:.0f}",
            ]
        )
    return Section(
        "Sizes",
        ["row", "body, M", "paper, M", "all classifiers, M", "macro F1", "epochs run"],
        lines,
    )


def _json(found: CategoryComparison) -> dict[str, Any]:
    gains: dict[str, Any] = {}
    for row, _, against, _ in found.rows:
        if against is not None and against in found.results and row not in found.same:
            one, other = found.results[row], found.results[against]
            gains[row] = {"over": against}
            for key, _, _, right in _PARTS:
                gain, half = gain_of(getattr(one, right), getattr(other, right), found.texts)
                gains[row][key] = {"gain": gain, "half_interval": half}
            of_gain = _coverage_gain(found, row, against)
            gains[row]["coverage_at_90"] = {
                name: 100 * value for name, value in asdict(of_gain).items()
            }
    return {
        "table": found.name,
        "data": found.data,
        "split": found.split,
        "products": len(found.texts),
        "recipe": found.recipe,
        "command": found.command,
        "systems": {row: dict(found.results[row].measures) for row, *_ in found.rows},
        "gains_in_points": gains,
        "paper_gains_in_points": {row: dict(paper) for row, _, _, paper in found.rows if paper},
    }


def _plot(found: CategoryComparison, path: Path) -> Path:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    names = {row: name for row, name, *_ in found.rows}
    for key in found.curves:
        if key in found.results:
            result = found.results[key]
            coverage, accuracy = accuracy_coverage(result.scores, result.right)
            last = len(coverage) - 1
            points = np.unique(np.linspace(0, last, _MOST_POINTS).astype(int))
            axes.plot(coverage[points], accuracy[points], label=names[key])
    axes.axhline(0.9, color="grey", linewidth=0.8)
    axes.set(xlabel="coverage", ylabel="category accuracy", xlim=(0, 1.02), ylim=(None, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=120)
    return path


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f}"


def _millions(count: float) -> str:
    return f"{count / 1e6:.1f}"
