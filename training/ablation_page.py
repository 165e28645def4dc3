"""The page of an ablation: rows, differences with their intervals, accuracy by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.ablation_table import Ablation
from training.paired_bootstrap import Interval
from training.report import Page, Section

__all__ = ["write_page"]

_SHOWN = {
    "category_accuracy": "category accuracy",
    "category_macro_f1": "category macro F1",
    "attribute_micro_f1_true_category": "attribute micro F1",
    "attribute_macro_f1_true_category": "attribute macro F1",
}


def write_page(found: Ablation, out: Path) -> None:
    """Write ``<data>-<table>.md``, ``.html`` and ``.json`` into ``out``."""
    stem = f"{found.data}-{found.name}"
    page = Page(
        f"{found.name} on {found.data}",
        [
            found.table.about + ".",
            "",
            f"{found.products:,} products of {found.split}, recipe `{found.recipe}`. Attributes: "
            "the true category is given, irrelevant labels are dropped. Macro F1 is over leaves, "
            "and over labels, seen in training and in the split.",
        ],
        found.command,
        [_rows(found), *_wanted(found), _differences(found), _sources(found)],
        [],
        found.hardware,
        found.notes,
    )
    page.write(out, stem, _json(found))


def _json(found: Ablation) -> dict[str, Any]:
    return {
        "table": found.name,
        "data": found.data,
        "split": found.split,
        "products": found.products,
        "recipe": found.recipe,
        "command": found.command,
        "systems": found.measures,
        "wanted": dict(zip(_measures(found), found.table.wanted.get(found.data, ()), strict=False)),
        "elsewhere": {found.table.elsewhere_name: found.table.elsewhere.get(found.data, ())},
        "intervals": {name: asdict(each) for name, each in found.own.items()},
        "differences": {
            key: {name: asdict(each) for name, each in of.items()}
            for key, of in found.differences.items()
        },
        "by_source": {
            source: {"products": count, "category_accuracy": share}
            for source, (count, share) in found.by_source.items()
        },
        "evaluated_products_per_s": found.speeds,
    }


def _names(found: Ablation) -> dict[str, str]:
    names = {row.key: row.name for row in found.table.rows if row.key in found.measures}
    return {**names, **({found.against: found.against} if found.against else {})}


def _measures(found: Ablation) -> list[str]:
    return list(found.measures[found.table.whole])


def _rows(found: Ablation) -> Section:
    measures = _measures(found)
    rows = [
        [name, *_cells(found.measures[key], measures), _speed(found.speeds.get(key))]
        for key, name in _names(found).items()
    ]
    elsewhere = found.table.elsewhere.get(found.data)
    if elsewhere:
        rows.append([found.table.elsewhere_name, *(f"{each:.3f}" for each in elsewhere), ""])
    columns = ["row", *(_SHOWN[each] for each in measures), "products/s, measured twice over"]
    note = "Speed: on the hardware above; attributes are scored for both categories."
    return Section("Rows", columns, rows, note)


def _wanted(found: Ablation) -> list[Section]:
    """The least that is wanted of the whole on test, where the table says it; what it lacks."""
    wanted = found.table.wanted.get(found.data)
    if not wanted or found.split != "test":
        return []
    measures = _measures(found)
    of = found.measures[found.table.whole]
    least = [f"{each:.3f}" for each in wanted]
    lacks = [
        f"{of[name]:.4f}" + ("" if of[name] >= each else f", {_points(each - of[name])} missing")
        for name, each in zip(measures, wanted, strict=False)
    ]
    columns = ["", *(_SHOWN[each] for each in measures)]
    return [Section("Wanted", columns, [["at least", *least], ["reached", *lacks]])]


def _points(share: float) -> str:
    return f"{100 * share:.2f} points" if share >= 1e-4 else f"{100 * share:.4f} points"


def _differences(found: Ablation) -> Section:
    measures = _measures(found)
    names = _names(found)
    whole = names[found.table.whole]
    rows = [[f"{whole}: its figures", *_intervals(found.own, measures, sign=False)]]
    rows += [
        [f"more than {names[key]}", *_intervals(of, measures, sign=True)]
        for key, of in found.differences.items()
    ]
    note = (
        "95 % intervals of 1,000 paired draws of the texts (bootstrap; products of one text are "
        "drawn together), in points. A draw lacks some rare leaves and labels, so a macro figure's "
        "own interval lies high; differences do not suffer from it, both systems lack the same "
        "ones."
    )
    heading = f"Differences of: {whole}"
    return Section(heading, ["", *(_SHOWN[each] for each in measures)], rows, note)


def _sources(found: Ablation) -> Section:
    rows = [
        [source, f"{count:,}", f"{share:.4f}"] for source, (count, share) in found.by_source.items()
    ]
    return Section("By source", ["source", "products", "category accuracy"], rows)


def _cells(of: Mapping[str, float], measures: Sequence[str]) -> list[str]:
    return [f"{of[each]:.4f}" if each in of else "" for each in measures]


def _intervals(of: Mapping[str, Interval], measures: Sequence[str], *, sign: bool) -> list[str]:
    form = "+.2f" if sign else ".2f"
    return [
        f"{100 * each.figure:{form}} ({100 * each.low:{form}} to {100 * each.high:{form}})"
        for each in (of[name] for name in measures if name in of)
    ]


def _speed(speed: float | None) -> str:
    return "" if speed is None else f"{speed:,.0f}"
