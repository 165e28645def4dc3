"""``sortiment-train compare`` for a table of categories: the strategies of dhpc-amazon, row by row.

A row is a recipe with some settings changed, and may stand on another row. Gains are over the row
that it stands on, or over the one it is set against, on the same products, with 95 % intervals
over their texts as the data set has them.

Legend: N products, C leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic.dataclasses
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from models.cascade import CascadeOutputs
from models.dhpc import DhpcCategories, department_rows, dhpc_categories
from models.encoders import pooled_states
from models.loading import load_predictor
from models.manifest import MANIFEST
from models.prepare import Prepared, Preparer
from models.release import read_release
from training import metrics
from training.category_page import CategoryComparison, RowResult, write_category_page
from training.changes import Changes
from training.data import DataSet, LabelledProduct
from training.features import encoder_digest
from training.predictions import plan
from training.prepared import file_digest
from training.processes import Processes, one_process
from training.recipe import SETTINGS, DhpcSettings, Recipe
from training.same_texts import text_keys
from training.table_rows import (
    Asked,
    is_trained,
    read_table,
    row_folder,
    row_recipe,
    train_row,
)
from training.whole_files import written_whole

__all__ = ["CategoryRow", "CategoryTable", "compare_categories", "load_category_table"]

_TARGET = 0.9
# Products that heads score at once where no encoder is to read them.
_HEADS_BATCH = 2_048
_ARRAYS = ("right_departments", "right_leaves", "right", "scores")


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CategoryRow:
    """A row of a table.

    Attributes:
        base: the row whose settings come first. against: gains are over this row; None: over
            ``base``.
        recipe: of its own; None: the comparison's.
        epochs: so many times the epochs of the row that it stands on.
        paper: the paper's gains, in points: ``department``, ``leaf``, ``coverage``; and
            ``parameters``, in millions.
    """

    key: str
    name: str
    base: str | None = None
    against: str | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    epochs: float = 1.0
    paper: dict[str, float] = field(default_factory=dict)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CategoryTable:
    """Rows of a recipe; ``curves`` are drawn as accuracy against coverage."""

    kind: Literal["categories"]
    about: str
    recipe: str
    rows: tuple[CategoryRow, ...]
    curves: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known: set[str] = set()
        for row in self.rows:
            if row.base is not None and row.base not in known:
                raise ValueError(f"{row.key} stands on {row.base}, which is no row before it")
            known.add(row.key)

    def row(self, key: str) -> CategoryRow:
        """The row of a key."""
        return next(row for row in self.rows if row.key == key)

    def recipe_of(self, row: CategoryRow, asked: Asked) -> Recipe:
        """A row's recipe; rows that have none of their own take the one that was asked for."""
        chain = [row]
        while chain[0].base is not None:
            chain.insert(0, self.row(chain[0].base))
        used = next((each.recipe for each in reversed(chain) if each.recipe), None)
        settings = [setting for each in chain for setting in each.settings]
        made = row_recipe(asked, used or asked.recipe or self.recipe, row.key, settings)
        given = any(each.startswith("train.epochs=") for each in asked.settings_of(row.key))
        factor = 1.0 if given else float(np.prod([each.epochs for each in chain]))
        epochs = max(1, round(made.train.epochs * factor))
        return replace(made, train=replace(made.train, epochs=epochs))


def load_category_table(name: str) -> CategoryTable:
    """A table of categories that comes with the package.

    Raises:
        SortimentError: there is none of this name, or it is of another kind.
    """
    return TypeAdapter(CategoryTable).validate_python(read_table(name, "categories"))


def compare_categories(asked: Asked, say: Callable[[str], object] = print) -> CategoryComparison:
    """Train (where that is not done yet) and measure rows; write Markdown, HTML, JSON and a plot.

    Rows measured in the same ``out`` before, by the same settings, are on the page too.

    Raises:
        SortimentError: a row is unknown, cannot be trained, or ``out`` holds it by other settings.
    """
    one_process("compare", "train each row with run under torchrun")
    table = load_category_table(asked.table)
    chosen = asked.chosen(table.rows)
    if asked.rows:
        # In the order that was asked: what matters most comes first where time is short.
        chosen.sort(key=lambda row: asked.rows.index(row.key))
    made = {row.key: table.recipe_of(row, asked) for row in chosen}
    measuring = _Measuring(DataSet(asked.data), asked.split)
    results: dict[str, RowResult] = {}
    shown = dict(made)
    for row in chosen:
        say(f"row {row.key}: {row.name}")
        train_row(made[row.key], say)
        kept = _Kept(asked.out, row.key, measuring.split)
        result = kept.read()
        if result is None:
            result = measuring.of(made[row.key])
            kept.write(result)
        results[row.key] = result
        say(
            f"  department {results[row.key].measures['department_accuracy']:.4f}, "
            f"leaf {results[row.key].measures['category_accuracy']:.4f}"
        )
    for row in table.rows:
        # One that other settings made is not to be compared with these.
        recipe = table.recipe_of(row, asked)
        if row.key not in results and is_trained(recipe):
            before = _Kept(asked.out, row.key, measuring.split).read()
            if before is not None:
                results[row.key], shown[row.key] = before, recipe
    is_whole = len(results) == len(table.rows)
    all_shown = replace(
        asked, rows=[] if is_whole else [r.key for r in table.rows if r.key in results]
    )
    found = CategoryComparison(
        about=table.about,
        rows=tuple(
            (row.key, row.name, row.against or row.base, row.paper)
            for row in table.rows
            if row.key in results
        ),
        same=frozenset(
            row.key
            for row in table.rows
            if row.against is None
            and row.base is not None
            and _is_same_system(
                table.recipe_of(row, asked), table.recipe_of(table.row(row.base), asked)
            )
        ),
        curves=table.curves,
        name=asked.table,
        data=asked.data.name,
        split=asked.split,
        texts=measuring.texts,
        recipe=asked.recipe or table.recipe,
        results=results,
        command=all_shown.command(asked.recipe or table.recipe),
        hardware=asked.hardware,
        notes=asked.notes,
        heads_alone=any(
            isinstance(each.system, DhpcSettings) and each.system.gear == "frozen"
            for each in shown.values()
        ),
    )
    write_category_page(found, asked.out)
    return found


def _is_same_system(one: Recipe, other: Recipe) -> bool:
    """Whether a row's settings are what the recipe has anyway."""
    return replace(one, name="", about="") == replace(other, name="", about="", out=one.out)


class _Kept:
    """What was measured of a row's release, beside the release: encoders read slowly.

    Args:
        split: its name, and a digest of what it and the taxonomy hold.
    """

    def __init__(self, out: Path, key: str, split: tuple[str, str]) -> None:
        self._release = row_folder(out, key)
        self._file = self._release.with_name(f"{key}.{split[0]}.npz")
        self._data = split[1]

    def _digest(self) -> str:
        return hashlib.sha256((self._release / MANIFEST).read_bytes()).hexdigest()

    def read(self) -> RowResult | None:
        """None: nothing was measured, or of another release or other products."""
        if not self._file.exists() or not (self._release / MANIFEST).exists():
            return None
        with np.load(self._file, allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            if (about["manifest"], about.get("data")) != (self._digest(), self._data):
                return None
            return RowResult(about["measures"], *(kept[name] for name in _ARRAYS))

    def write(self, result: RowResult) -> None:
        of = {"manifest": self._digest(), "data": self._data}
        about = json.dumps({**of, "measures": dict(result.measures)})
        arrays = {name: getattr(result, name) for name in _ARRAYS}
        with written_whole(self._file) as fresh, fresh.open("wb") as file:
            np.savez_compressed(file, about=np.array(about), **arrays)


@dataclass(frozen=True, slots=True)
class _Items:
    """Products of the split, under one kind of changes."""

    key: str
    items: Sequence[LabelledProduct]


class _Measuring:
    """The split that all rows are measured on; what a frozen encoder reads is read once.

    Attributes:
        split: its name, and a digest of what it holds. texts: [N], equal where the text is.
    """

    def __init__(self, data: DataSet, split: str) -> None:
        self._data = data
        self._split = split
        files = data.file(split), data.taxonomy_file
        self.split = split, " ".join(map(file_digest, files))
        self._items: dict[str, _Items] = {}
        self._states: dict[str, Tensor] = {}
        self.texts = text_keys(item.product for item in data.listed(split))

    def of(self, recipe: Recipe) -> RowResult:
        """What a row's release does with the split, whose texts may be dropped as in training."""
        device = Processes(recipe.device).device
        release = read_release(recipe.out)
        predictor = load_predictor(release, device, "float32")
        model = dhpc_categories(predictor)
        items = self._of_changes(recipe)
        true_ids = [item.category for item in items.items]
        row_of = model.categories.row_of
        true = np.array([row_of.get(each, -1) for each in true_ids], dtype=np.int64)
        departments = department_rows(release.taxonomy, model.categories)
        outputs = self._outputs(model, predictor.preparer, items, true, departments, device)

        scores, best = outputs.scores(model.net.temperatures.cpu()).max(dim=1)
        score, predicted = model.calibrated(scores).numpy(), best.numpy()
        true_departments = np.where(true >= 0, departments[np.maximum(true, 0)], -1)
        right_departments = outputs.best_departments().numpy() == true_departments
        given = torch.from_numpy(np.maximum(true_departments, 0))
        right_leaves = outputs.best_leaves(given).numpy() == true
        right = predicted == true
        assigned = score >= model.thresholds[predicted]
        coverage, assigned_accuracy = metrics.accuracy_where(right, assigned)
        curve = metrics.accuracy_coverage(score, right)
        reached = curve[0][curve[1] >= _TARGET]
        ids = model.categories.ids
        measured = {
            "department_accuracy": float(right_departments.mean()),
            "leaf_accuracy_true_department": float(right_leaves.mean()),
            "category_accuracy": float(right.mean()),
            "category_macro_f1": metrics.macro_f1(true_ids, [ids[row] for row in predicted]),
            "coverage": coverage,
            "assigned_accuracy": assigned_accuracy,
            "coverage_at_90": float(reached[-1]) if len(reached) else 0.0,
            "calibration_error": metrics.reliability(score, right).calibration_error,
            "parameters": float(release.metrics["parameters"]),
            "body_parameters": float(release.metrics["body_parameters"]),
            "epochs": float(release.metrics["epochs"]),
        }
        return RowResult(measured, right_departments, right_leaves, right, score)

    def _of_changes(self, recipe: Recipe) -> _Items:
        changes = Changes(recipe.changes, recipe.seed, self._data.taxonomy)
        key = json.dumps(changes.key(self._split) if self._split != "train" else None)
        if key not in self._items:
            products = self._data.products(self._split)
            self._items[key] = _Items(key, list(changes.of(self._split, products)))
        return self._items[key]

    def _outputs(
        self,
        model: DhpcCategories,
        preparer: Preparer,
        items: _Items,
        true: NDArray[np.int64],
        departments: NDArray[np.int64],
        device: torch.device,
    ) -> CascadeOutputs:
        """Logits of all products on the CPU, the true department's leaves among them."""
        prepared = preparer.prepare([item.product for item in items.items])
        batches = plan(prepared.costs)
        shared = self._shared(model, prepared, batches, items.key)
        also = np.where(true >= 0, departments[np.maximum(true, 0)], -1)
        found = []
        if shared is not None:
            batches = [
                np.arange(first, min(first + _HEADS_BATCH, len(prepared)))
                for first in range(0, len(prepared), _HEADS_BATCH)
            ]
        for rows in batches:
            known = None if shared is None else shared[torch.from_numpy(rows)].to(device)
            found.append(model.outputs(prepared.take(rows), also[rows], known))
        back = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return CascadeOutputs(
            torch.cat([each.department.cpu() for each in found])[back],
            torch.cat([each.leaf.cpu() for each in found])[back],
            torch.cat([each.in_beam.cpu() for each in found])[back],
            model.net.department_of.cpu(),
        )

    def _shared(
        self,
        model: DhpcCategories,
        prepared: Prepared,
        batches: Sequence[NDArray[np.int64]],
        items_key: str,
    ) -> Tensor | None:
        """Features of the encoder that all classifiers share; None: each has its own."""
        config = model.net.config
        if config.bodies != "shared" or config.encoder is None:
            return None
        reader = model.shared_reader()
        digest = encoder_digest(reader)
        key = json.dumps([digest, items_key, config.max_tokens, config.letters, config.segments])
        if key not in self._states:
            found = [model.read(reader, prepared.take(rows)).cpu() for rows in batches]
            back = torch.from_numpy(np.argsort(np.concatenate(batches)))
            self._states[key] = torch.cat(found)[back]
        return pooled_states(self._states[key], config.encoder)
