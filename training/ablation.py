"""``sortiment-train compare flagship``: what each part of the flagship is worth, on one data set.

A row is a recipe with some settings changed. Categories are measured as served, attributes under
the true category (irrelevant labels dropped); differences have a paired bootstrap's interval.
"""

from __future__ import annotations

import gzip
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
import pydantic.dataclasses
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tqdm import tqdm

from models.errors import SortimentError
from models.loading import load_predictor
from models.release import read_release
from training.ablation_page import write_page
from training.compare import NOT_A_MATTER, train_row
from training.data import DataSet, LabelledProduct
from training.metrics import share_by_group
from training.paired_bootstrap import (
    Figures,
    Interval,
    attribute_figures,
    category_figures,
    intervals,
)
from training.predictions import predict_products
from training.prepared import sampled
from training.processes import Processes
from training.recipe import SETTINGS, Recipe
from training.recipe_files import SafeLoader, load_recipe

__all__ = ["Ablation", "AblationTable", "ablate"]

_FOLDER = Path(__file__).parent / "tables"
NAMES = (
    "category_accuracy",
    "category_macro_f1",
    "attribute_micro_f1_true_category",
    "attribute_macro_f1_true_category",
)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AblationRow:
    """``settings`` on top of the table's recipe."""

    key: str
    name: str
    settings: tuple[str, ...] = ()


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AblationTable:
    """Rows of a recipe; all differences are to ``whole``.

    Attributes:
        elsewhere: figures of a system that is not trained here, by data set, in ``NAMES``' order.
    """

    about: str
    recipe: str
    whole: str
    rows: tuple[AblationRow, ...]
    elsewhere_name: str = ""
    elsewhere: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ablation:
    """What was measured, by row key; intervals are of the whole's own figures and of differences.

    Attributes:
        by_source: products and category accuracy of the whole, by the category ids' first part.
        speeds: products a second of one evaluation, the machine's other work beside it.
    """

    table: AblationTable
    name: str
    data: str
    split: str
    products: int
    recipe: str
    command: str
    measures: Mapping[str, Mapping[str, float]]
    own: Mapping[str, Interval]
    differences: Mapping[str, Mapping[str, Interval]]
    by_source: Mapping[str, tuple[int, float]]
    speeds: Mapping[str, float]
    against: str | None


def ablate(
    name: str,
    settings: Sequence[str],
    *,
    data_dir: Path,
    out: Path,
    recipe: str | None = None,
    rows: Sequence[str] = (),
    split: str = "test",
    against: Path | None = None,
    say: Callable[[str], object] = print,
) -> Ablation:
    """Train (where that is not done yet) and measure rows; write Markdown, HTML and JSON.

    Args:
        settings: ``key=value``, for the recipe of every row. recipe: instead of the table's.
        rows: keys; none: all. against: another system's predictions for the split, JSON lines
            ``{product_id, category, attributes: [[name, value]]}``, for a paired interval.

    Raises:
        SortimentError: a row is unknown, cannot be trained, or ``out`` holds it by other settings.
    """
    raw = yaml.load((_FOLDER / f"{name}.yaml").read_text("utf-8"), SafeLoader)  # noqa: S506
    table = TypeAdapter(AblationTable).validate_python(raw)
    unknown = sorted(set(rows) - {row.key for row in table.rows})
    if unknown:
        raise SortimentError(f"rows={','.join(unknown)}: none of this table's")
    chosen = [row for row in table.rows if not rows or row.key in rows]
    if table.whole not in {row.key for row in chosen}:
        raise SortimentError(f"rows={','.join(rows)}: differences are to {table.whole}, name it")
    used = recipe or table.recipe
    measuring: _Measuring | None = None
    figures: dict[str, list[Figures]] = {}
    speeds: dict[str, float] = {}
    by_source: Mapping[str, tuple[int, float]] = {}
    for row in chosen:
        say(f"row {row.key}: {row.name}")
        place = f"out={out / 'rows' / row.key}"
        made = load_recipe(used, [f"data={data_dir}", *settings, *row.settings, place])
        train_row(replace(made, name=f"{made.name}-{row.key}"), say)
        measuring = measuring or _Measuring(made, split)
        answers = measuring.of(made.out)
        figures[row.key] = measuring.figures(answers)
        speeds[row.key] = answers.products_per_s
        if row.key == table.whole:
            by_source = measuring.by_source(answers)
    if measuring is None:
        raise SortimentError(f"{name} has no rows")
    if against is not None:
        figures[against.name] = measuring.figures(measuring.read(against))
    whole = figures[table.whole]
    num_products = len(measuring.items)
    measures = {key: _named(each, num_products) for key, each in figures.items()}
    command = ["sortiment-train", "compare", name, f"data={data_dir.name}", f"out={out.name}"]
    command += [f"recipe={used}"]
    command += [each for each in settings if each.partition("=")[0] not in NOT_A_MATTER]
    command += [f"rows={','.join(rows)}"] if rows else []
    found = Ablation(
        table,
        name,
        data_dir.name,
        split,
        num_products,
        used,
        shlex.join(command),
        measures,
        _intervals(whole, None, num_products),
        {
            key: _intervals(whole, each, num_products)
            for key, each in figures.items()
            if key != table.whole
        },
        by_source,
        speeds,
        None if against is None else against.name,
    )
    write_page(found, out)
    return found


def _named(figures: Sequence[Figures], num_products: int) -> dict[str, float]:
    ones = np.ones(num_products)
    values = [float(value) for each in figures for value in each(ones)]
    return dict(zip(NAMES, values, strict=False))


def _intervals(
    whole: Sequence[Figures], other: Sequence[Figures] | None, num_products: int
) -> dict[str, Interval]:
    """Of the whole's figures, or of what it has more than another."""
    found: list[Interval] = []
    for place, measure in enumerate(whole):
        if other is None:
            found += intervals(measure, num_products)
        elif place < len(other):
            found += intervals(_difference(measure, other[place]), num_products)
    return dict(zip(NAMES, found, strict=False))


def _difference(one: Figures, other: Figures) -> Figures:
    return lambda weights: one(weights) - other(weights)


@dataclass(frozen=True, slots=True)
class _Answers:
    categories: Sequence[str]
    labels: Sequence[Sequence[str]] | None
    products_per_s: float = 0.0


class _Measuring:
    """The split that all rows are measured on."""

    def __init__(self, recipe: Recipe, split: str) -> None:
        data = DataSet(recipe.data)
        self.items: list[LabelledProduct] = list(data.products(split))
        self._device = Processes(recipe.device).device
        self._progress = bool(recipe.progress)
        self._labels = {each: row for row, each in enumerate(data.taxonomy.label_ids())}
        self._trained: NDArray[np.bool_] = np.zeros(len(self._labels), dtype=np.bool_)
        for item in sampled(data, "train", recipe.limit, recipe.seed):
            for each in item.label_ids:
                if each in self._labels:
                    self._trained[self._labels[each]] = True
        self._true = [self._rows(sorted(item.label_ids)) for item in self.items]

    def of(self, release_dir: Path) -> _Answers:
        """A release's answers, the true category given for attributes."""
        release = read_release(release_dir)
        predictor = load_predictor(release, self._device, "auto")
        with tqdm(total=len(self.items), desc="measure", disable=not self._progress) as bar:
            found = predict_products(
                release, predictor, self.items, self._device, advance=bar.update
            )
        if found.categories is None:
            raise SortimentError(f"{release_dir} has no category model")
        speed = len(self.items) / max(found.seconds, 1e-9)
        return _Answers(found.categories, found.labels_of_true, speed)

    def read(self, path: Path) -> _Answers:
        """Another system's answers."""
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            rows = {row["product_id"]: row for row in map(orjson.loads, file)}
        missing = [
            item.product.product_id for item in self.items if item.product.product_id not in rows
        ]
        if missing:
            raise SortimentError(f"{path} lacks {len(missing)} products, first {missing[0]}")
        answers = [rows[item.product.product_id] for item in self.items]
        labels = None
        if self._labels:
            labels = [["=".join(pair) for pair in each["attributes"]] for each in answers]
        return _Answers([each["category"] for each in answers], labels)

    def figures(self, answers: _Answers) -> list[Figures]:
        """Measures of categories, and of attributes where there are any."""
        true = [item.category for item in self.items]
        row_of = {each: row for row, each in enumerate(sorted({*true, *answers.categories}))}
        found = [
            category_figures(
                np.array([row_of[each] for each in true]),
                np.array([row_of[each] for each in answers.categories]),
            )
        ]
        if answers.labels is not None and self._labels:
            given = [[row for row in self._rows(each) if row >= 0] for each in answers.labels]
            found.append(attribute_figures(self._true, given, self._trained))
        return found

    def by_source(self, answers: _Answers) -> Mapping[str, tuple[int, float]]:
        """Products and accuracy, by the first part of the true category's id."""
        true = [item.category for item in self.items]
        right = [one == other for one, other in zip(true, answers.categories, strict=True)]
        return share_by_group([each.partition("/")[0] for each in true], right)

    def _rows(self, label_ids: Sequence[str]) -> list[int]:
        return [self._labels.get(each, -1) for each in label_ids]
