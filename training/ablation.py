"""``sortiment-train compare`` for a table of a system's parts: what each of them is worth.

Categories are measured as served, attributes under the true category (irrelevant labels dropped);
differences have a paired bootstrap's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.errors import SortimentError
from models.loading import load_predictor
from models.release import read_release
from training.ablation_page import write_page
from training.ablation_table import Ablation, load_ablation_table
from training.data import DataSet, LabelledProduct
from training.foreign_answers import read_answers
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
from training.processes import Processes, one_process
from training.recipe import Recipe
from training.same_texts import text_keys
from training.table_rows import Asked, row_recipe, train_row
from training.targets import label_counts

__all__ = ["NAMES", "ablate"]

NAMES = (
    "category_accuracy",
    "category_macro_f1",
    "attribute_micro_f1_true_category",
    "attribute_macro_f1_true_category",
)


def ablate(
    asked: Asked, *, against: Path | None = None, say: Callable[[str], object] = print
) -> Ablation:
    """Train (where that is not done yet) and measure rows; write Markdown, HTML and JSON.

    Args:
        against: another system's predictions for the split, JSON lines
            ``{product_id, category, attributes: [[name, value]]}``, for a paired interval.

    Raises:
        SortimentError: a row is unknown, cannot be trained, or ``out`` holds it by other settings;
            ``against`` cannot be read.
    """
    one_process("compare", "train each row with run under torchrun")
    table = load_ablation_table(asked.table)
    chosen = asked.chosen(table.rows)
    if table.whole not in {row.key for row in chosen}:
        raise SortimentError(
            f"rows={','.join(asked.rows)}: differences are to {table.whole}, name it"
        )
    used = asked.recipe or table.recipe
    made = {row.key: row_recipe(asked, used, row.key, row.settings) for row in chosen}
    if made[table.whole].limit is not None:
        # Figures of all training products say nothing beside those of some.
        table = replace(table, elsewhere={}, wanted={})
    measuring = _Measuring(made[table.whole], asked.split)
    others = None if against is None else measuring.read(against)
    figures: dict[str, list[Figures]] = {}
    speeds: dict[str, float] = {}
    by_source: Mapping[str, tuple[int, float]] = {}
    for row in chosen:
        say(f"row {row.key}: {row.name}")
        train_row(made[row.key], say)
        answers = measuring.of(made[row.key].out)
        figures[row.key] = measuring.figures(answers)
        speeds[row.key] = answers.products_per_s
        if row.key == table.whole:
            by_source = measuring.by_source(answers)
    own = {}
    if against is not None and others is not None:
        figures[against.name] = measuring.figures(others)
        own["against"] = against.name
    whole = figures[table.whole]
    texts = text_keys(item.product for item in measuring.items)
    found = Ablation(
        table=table,
        name=asked.table,
        data=asked.data.name,
        split=asked.split,
        products=len(texts),
        recipe=used,
        command=asked.command(used, **own),
        hardware=asked.hardware,
        notes=asked.notes,
        measures={key: _named(each, len(texts)) for key, each in figures.items()},
        own=_intervals(whole, None, texts),
        differences={
            key: _intervals(whole, each, texts)
            for key, each in figures.items()
            if key != table.whole
        },
        by_source=by_source,
        speeds=speeds,
        against=None if against is None else against.name,
    )
    write_page(found, asked.out)
    return found


def _named(figures: Sequence[Figures], num_products: int) -> dict[str, float]:
    ones = np.ones(num_products)
    values = [float(value) for each in figures for value in each(ones)]
    return dict(zip(NAMES, values, strict=False))


def _intervals(
    whole: Sequence[Figures], other: Sequence[Figures] | None, texts: NDArray[np.int64]
) -> dict[str, Interval]:
    """Of the whole's figures, or of what it has more than another."""
    found: list[Interval] = []
    for place, measure in enumerate(whole):
        if other is None:
            found += intervals(measure, texts)
        elif place < len(other):
            found += intervals(_difference(measure, other[place]), texts)
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
        self.items = data.listed(split)
        self._device = Processes(recipe.device).device
        self._progress = bool(recipe.progress)
        self._taxonomy = data.taxonomy
        self._labels = {each: row for row, each in enumerate(self._taxonomy.label_ids())}
        self._trained_categories: set[str] = set()
        trained = self._noted(sampled(data, "train", recipe.limit, recipe.limit_seed))
        self._trained = label_counts(trained, self._labels) > 0
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
        return _Answers(*read_answers(path, self.items, self._taxonomy))

    def figures(self, answers: _Answers) -> list[Figures]:
        """Measures of categories, and of attributes where there are any."""
        true = [item.category for item in self.items]
        names = sorted({*true, *answers.categories})
        row_of = {each: row for row, each in enumerate(names)}
        found = [
            category_figures(
                np.array([row_of[each] for each in true]),
                np.array([row_of[each] for each in answers.categories]),
                np.array([each in self._trained_categories for each in names]),
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

    def _noted(self, products: Iterable[LabelledProduct]) -> Iterator[LabelledProduct]:
        for item in products:
            self._trained_categories.add(item.category)
            yield item

    def _rows(self, label_ids: Sequence[str]) -> list[int]:
        return [self._labels.get(each, -1) for each in label_ids]
