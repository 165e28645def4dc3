"""The page of an attribute comparison: tables beside the paper's, gains by frequency, plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.attribute_table import AttributeComparison
from training.report import Page, Section

__all__ = ["write_pages"]

_PARTS = (
    ("micro", "Micro", ("micro_precision", "micro_recall", "micro_f1"), ("P", "R", "F1")),
    (
        "macro",
        "Macro, over labels seen in training and in the split",
        ("macro_precision", "macro_recall", "macro_f1_of_means"),
        ("P", "R", "F1 of these"),
    ),
    (
        "at",
        "Precision among the k best, without a threshold",
        ("precision_at_1", "precision_at_3", "precision_at_5"),
        ("P@1", "P@3", "P@5"),
    ),
)
# What gains are of, by group.
_KINDS = ("micro_f1", "macro_f1_of_means", "macro_f1")
_COLOUR, _PAPER = "#31688e", "#bbbbbb"


def write_pages(found: AttributeComparison, out: Path) -> None:
    """Write ``<data>-<table>.md``, ``.html``, ``.json`` and plots into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{found.data}-{found.name}"
    plots = [_plot_rows(found, out / f"{stem}-f1.png")]
    gains = _gains(found)
    if gains:
        plots.append(_plot_gains(found, gains, out / f"{stem}-gains.png"))
    page = Page(
        f"{found.name} on {found.data}",
        [
            found.table.about + ".",
            "",
            f"{found.trained:,} training products, {found.products:,} of {found.split}, recipe "
            f"`{found.recipe}`. Figures in per cent, the paper's in the column after each: those "
            "are of its own data, so rows compare with rows. Irrelevant labels are dropped in "
            f"every row. The true category is given in every row{_but_predicted(found)}.",
        ],
        found.command,
        [*(_section(found, part) for part in _PARTS), *_means(found), *_groups(found, gains)],
        plots,
        found.hardware,
        found.notes,
    )
    page.write(out, stem, _json(found))


def _but_predicted(found: AttributeComparison) -> str:
    """What the page says of rows that are given the predicted category."""
    names = [name for key, name in _names(found).items() if key.endswith("-predicted")]
    return f" but “{names[0]}”" if names else ""


def _json(found: AttributeComparison) -> dict[str, Any]:
    """Figures as shares; those with the true category carry that in their names."""
    rows = {}
    for key, measures in found.measures.items():
        suffix = "" if key.endswith("-predicted") else "_true_category"
        rows[key] = {f"attribute_{name}{suffix}": value for name, value in measures.items()}
    return {
        "table": found.name,
        "data": found.data,
        "split": found.split,
        "products": found.products,
        "trained": found.trained,
        "recipe": found.recipe,
        "command": found.command,
        "systems": rows,
        "gains": {
            group: dict(zip(_KINDS, gain, strict=True)) for group, gain in _gains(found).items()
        },
        "gains_of_all_labels": dict(zip(_KINDS, _gain(found), strict=False)),
        "paper": {
            "systems": {row.key: row.paper for row in found.table.rows},
            "groups": {group.name: group.paper for group in found.table.groups},
        },
    }


def _names(found: AttributeComparison) -> dict[str, str]:
    names = {row.key: row.name for row in found.table.rows}
    key = f"{found.table.best}-predicted"
    if key in found.measures:
        names[key] = f"{names[found.table.best]}, predicted category"
    return names


def _section(
    found: AttributeComparison, part: tuple[str, str, Sequence[str], Sequence[str]]
) -> Section:
    of_paper, heading, measures, shown = part
    columns = ["row"]
    for name in shown:
        columns += [name, "paper"]
    paper = {row.key: row.paper.get(of_paper, ()) for row in found.table.rows}
    rows = []
    for key, name in _names(found).items():
        cells = [name]
        theirs = paper.get(key, ())
        for place, measure in enumerate(measures):
            ours = found.measures.get(key)
            cells.append("not run" if ours is None else _per_cent(ours[measure]))
            cells.append(f"{theirs[place]:.2f}" if place < len(theirs) else "")
        rows.append(cells)
    note = ""
    if of_paper == "macro":
        note = (
            "The paper prints as macro F1 the harmonic mean of its macro precision and recall; so "
            "does this table. The mean of the labels' own F1 is in the next one."
        )
    return Section(heading, columns, rows, note)


def _means(found: AttributeComparison) -> list[Section]:
    names = _names(found)
    groups = found.table.groups
    rows = []
    for key, of in found.measures.items():
        cells = [names[key], _per_cent(of["macro_f1"])]
        cells += [_per_cent_of(of, group.name, "macro_f1") for group in groups]
        rows.append(cells)
    columns = ["row", "all labels", *(group.name for group in groups)]
    return [Section("Macro F1 as the mean of the labels' F1", columns, rows)]


def _gains(found: AttributeComparison) -> dict[str, tuple[float, ...]]:
    """Gains of the best row over the baseline in points, by group, of each of ``_KINDS``.

    A group without labels has none.
    """
    best = found.measures.get(found.table.best, {})
    return {
        group.name: _gain(found, f"{group.name}_")
        for group in found.table.groups
        if best.get(f"{group.name}_labels") and found.table.baseline in found.measures
    }


def _gain(found: AttributeComparison, group: str = "") -> tuple[float, ...]:
    """In points, of each of ``_KINDS``; empty where one of the two rows was not measured."""
    best = found.measures.get(found.table.best)
    base = found.measures.get(found.table.baseline)
    if best is None or base is None:
        return ()
    return tuple(100 * (best[group + kind] - base[group + kind]) for kind in _KINDS)


def _groups(found: AttributeComparison, gains: Mapping[str, tuple[float, ...]]) -> list[Section]:
    best = found.measures.get(found.table.best)
    if best is None or not gains:
        return []
    columns = ["group", "trained at least", "labels", "paper"]
    for name in ("micro F1", "gain", "macro F1 of P and R", "gain"):
        columns += [name, "paper"]
    rows = []
    for group in found.table.groups:
        num_labels, micro, micro_gain, macro, macro_gain = group.paper
        ours = [f"{gain:+.2f}" for gain in gains.get(group.name, ())] or ["-"] * len(_KINDS)
        cells = [group.name, f"{group.least:,}"]
        cells += [f"{int(best[f'{group.name}_labels']):,}", f"{num_labels:,.0f}"]
        cells += [_per_cent_of(best, group.name, _KINDS[0]), f"{micro:.2f}"]
        cells += [ours[0], f"{micro_gain:+.2f}"]
        cells += [_per_cent_of(best, group.name, _KINDS[1]), f"{macro:.2f}"]
        cells += [ours[1], f"{macro_gain:+.2f}"]
        rows.append(cells)
    names = _names(found)
    heading = f"By frequency in training: {names[found.table.best]}"
    note = f"Gains in points over {names[found.table.baseline]}."
    return [Section(heading, columns, rows, note)]


def _plot_rows(found: AttributeComparison, path: Path) -> Path:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = _names(found)
    paper = {row.key: row.paper for row in found.table.rows}
    shown = list(names)[::-1]
    places = np.arange(len(shown))
    measures = (("micro", "micro_f1"), ("macro", "macro_f1_of_means"))
    for axes, (kind, measure) in zip(figure.subplots(1, 2, sharey=True), measures, strict=True):
        ours = [100 * found.measures.get(key, {}).get(measure, 0.0) for key in shown]
        theirs = [paper[key][kind][2] if kind in paper.get(key, {}) else 0.0 for key in shown]
        axes.barh(places + 0.2, ours, 0.4, color=_COLOUR, label=found.data)
        axes.barh(places - 0.2, theirs, 0.4, color=_PAPER, label="paper, its own data")
        axes.set(xlabel=f"{kind} F1, %", xlim=(0, 100))
        axes.set_yticks(places, [names[key] for key in shown])
        axes.grid(alpha=0.3, axis="x")
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    return path


def _plot_gains(
    found: AttributeComparison, gains: Mapping[str, tuple[float, ...]], path: Path
) -> Path:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    places = np.arange(len(gains))
    theirs = {group.name: group.paper for group in found.table.groups}
    kinds = (("micro", 0, 2), ("macro", 1, 4))
    for axes, (kind, ours, paper) in zip(figure.subplots(1, 2), kinds, strict=True):
        axes.bar(places - 0.2, [gain[ours] for gain in gains.values()], 0.4, color=_COLOUR)
        axes.bar(places + 0.2, [theirs[name][paper] for name in gains], 0.4, color=_PAPER)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(ylabel=f"gain in {kind} F1, points", xlabel="labels by frequency in training")
        axes.set_xticks(places, list(gains))
        axes.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=120)
    return path


def _per_cent_of(measures: Mapping[str, float], group: str, kind: str) -> str:
    """A dash for a group without labels: it has no share."""
    return _per_cent(measures[f"{group}_{kind}"]) if measures[f"{group}_labels"] else "-"


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f}"
