"""``sortiment-train compare`` for a table of attributes: BERT with label masking and its baselines.

Every row is measured on the same split by one rule (``training.attribute_measures``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.errors import SortimentError
from models.labels import LabelSpace
from models.loading import load_predictor
from models.release import read_release
from models.release_store import fetch_release
from training.attribute_measures import FrequencyGroup, attribute_measures, scored_labels
from training.attribute_page import write_pages
from training.attribute_table import AttributeComparison, Group, load_attribute_table
from training.data import DataSet
from training.encoded_batches import EncodedBatches
from training.foreign_answers import read_scored_labels
from training.predictions import predict_products
from training.prepared import sampled
from training.processes import Processes, one_process
from training.recipe import Recipe
from training.table_rows import Asked, chosen_rows, row_folder, row_recipe, train_row
from training.targets import label_counts

__all__ = ["compare_attributes"]


def compare_attributes(
    asked: Asked,
    *,
    categories: str | None = None,
    against: Sequence[Path] = (),
    say: Callable[[str], object] = print,
) -> AttributeComparison:
    """Train (where that is not done yet) and measure rows; write Markdown, HTML, JSON and plots.

    Args:
        categories: address of a release; its predicted categories make one further row.
        against: scored labels of rows that are not trained here (``training.foreign_answers``);
            a file's name without its endings is the row's key.

    Raises:
        SortimentError: a row is unknown, cannot be trained, or ``out`` holds it by other settings;
            a file of ``against`` is no such row's, or cannot be read.
    """
    one_process("compare", "train each row with run under torchrun")
    table = load_attribute_table(asked.table)
    chosen = asked.chosen([row for row in table.rows if not row.elsewhere])
    if categories is not None and table.best not in {row.key for row in chosen}:
        raise SortimentError(
            f"categories={categories} is for {table.best}, which is not among "
            f"rows={','.join(asked.rows)}"
        )
    keys = [path.name.partition(".")[0] for path in against]
    chosen_rows((row for row in table.rows if row.elsewhere), keys, "against")
    elsewhere = dict(zip(keys, against, strict=True))
    used = asked.recipe or table.recipe
    made = {row.key: row_recipe(asked, used, row.key, row.settings) for row in chosen}
    # Settings of all rows are checked before the first is trained.
    measuring = _Measuring(made[chosen[0].key], asked.split, table.groups)
    measures: dict[str, Mapping[str, float]] = {
        key: measuring.read(path) for key, path in elsewhere.items()
    }
    for row in chosen:
        say(f"row {row.key}: {row.name}")
        train_row(made[row.key], say)
        measures[row.key] = measuring.of(made[row.key].out, measuring.true_categories)
    own = {}
    if categories is not None:
        predicted = measuring.predicted(categories)
        best = row_folder(asked.out, table.best)
        measures[f"{table.best}-predicted"] = measuring.of(best, predicted)
        own["categories"] = Path(categories).name
    if against:
        own["against"] = ",".join(path.name for path in against)
    found = AttributeComparison(
        table=table,
        name=asked.table,
        data=asked.data.name,
        split=asked.split,
        products=len(measuring.items),
        trained=measuring.trained,
        measures=measures,
        recipe=used,
        command=asked.command(used, **own),
        hardware=asked.hardware,
        notes=asked.notes,
    )
    write_pages(found, asked.out)
    return found


class _Measuring:
    """The split that all rows are measured on."""

    def __init__(self, recipe: Recipe, split: str, groups: Sequence[Group]) -> None:
        data = DataSet(recipe.data)
        self.items = data.listed(split)
        self.true_categories = [item.category for item in self.items]
        self._device = Processes(recipe.device).device
        self._progress = sys.stderr.isatty() if recipe.progress is None else recipe.progress
        self._cache = recipe.cache / "releases"
        self._groups = [FrequencyGroup(group.name, group.least) for group in groups]
        self._taxonomy = data.taxonomy
        self._labels = LabelSpace(tuple(data.taxonomy.label_ids()))
        row_of = self._labels.row_of
        self._true = [
            sorted(row_of.get(each, -1) for each in item.label_ids) for item in self.items
        ]
        trained = sampled(data, "train", recipe.limit, recipe.limit_seed)
        self._train_counts = label_counts(trained, row_of)
        num_products = data.count("train")
        self.trained = min(num_products, recipe.limit or num_products)
        self._encoded = EncodedBatches()

    def of(self, release_dir: Path, categories: Sequence[str]) -> dict[str, float]:
        """A release's measures, these categories given."""
        release = read_release(release_dir)
        if release.labels != self._labels or release.label_thresholds is None:
            raise SortimentError(f"{release_dir} has other labels than the data's taxonomy")
        with tqdm(total=len(self.items), desc="measure", disable=not self._progress) as bar:
            found = scored_labels(
                release,
                self.items,
                categories,
                self._device,
                encoded=self._encoded,
                advance=bar.update,
            )
        return attribute_measures(
            found, self._true, release.label_thresholds, self._train_counts, self._groups
        )

    def read(self, path: Path) -> dict[str, float]:
        """Another system's measures, at 0.5 as in the paper."""
        found = read_scored_labels(path, self.items, self._taxonomy)
        half = np.full(len(self._labels), 0.5, dtype=np.float32)
        return attribute_measures(found, self._true, half, self._train_counts, self._groups)

    def predicted(self, address: str) -> list[str]:
        """Categories that a release predicts."""
        release = read_release(fetch_release(address, self._cache))
        predictor = load_predictor(release, self._device, "auto")
        if predictor.category is None:
            raise SortimentError(f"categories={address}: the release has no category model")
        alone = replace(predictor, attribute=None)
        found = predict_products(release, alone, self.items, self._device)
        return found.categories or []
