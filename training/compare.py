"""``sortiment-train compare``: all rows of a paper's table on one data set, beside the paper's own.

A row is a recipe with some settings changed. Rows that are done are kept in ``out/rows`` and not
trained again, so a comparison that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import click
import numpy as np
import pydantic.dataclasses
import yaml
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from tqdm import tqdm

from models.errors import SortimentError
from models.labels import LabelSpace
from models.loading import load_predictor
from models.release import fetch_release, read_release
from training.attribute_measures import FrequencyGroup, attribute_measures, scored_labels
from training.attribute_page import write_pages
from training.data import DataSet, LabelledProduct
from training.predictions import predict_products
from training.prepared import sampled
from training.processes import Processes
from training.recipe import SETTINGS, Recipe
from training.recipe_files import SafeLoader, load_recipe
from training.run import run

__all__ = [
    "NOT_A_MATTER",
    "PaperTable",
    "Row",
    "compare",
    "compare_command",
    "load_table",
    "read_table",
    "shown_command",
    "train_row",
]

_FOLDER = Path(__file__).parent / "tables"
_OWN_KEYS = ("recipe", "rows", "split", "categories", "against", "data", "out")
# Tables of a system's own parts: ``training.ablation``.
_ABLATIONS = ("flagship",)
NOT_A_MATTER = ("cache", "device", "progress", "resume", "tensorboard")
_SUFFIX = "_true_category"

Figures = Annotated[tuple[float, ...], Field(min_length=3, max_length=5)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Row:
    """A row: ``settings`` on top of the table's recipe, and the paper's figures in per cent.

    Attributes:
        elsewhere: the row is not trained here; only the paper's figures are shown.
        paper: ``micro`` and ``macro`` (precision, recall, F1) and ``at`` (P@1, 3, 5).
    """

    key: str
    name: str
    settings: tuple[str, ...] = ()
    elsewhere: bool = False
    paper: dict[str, Figures] = field(default_factory=dict)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Group:
    """Labels by training count; ``paper``: labels, micro F1, gain, macro F1, gain."""

    name: str
    least: int
    paper: Figures


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PaperTable:
    """A paper's table: which rows, of which recipe; gains are of ``best`` over ``baseline``."""

    about: str
    recipe: str
    baseline: str
    best: str
    rows: tuple[Row, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured: figures by row key, and what they were measured on."""

    table: PaperTable
    name: str
    data: str
    split: str
    products: int
    measures: Mapping[str, Mapping[str, float]]
    recipe: str
    command: str


def load_table(name: str) -> PaperTable:
    """A table that comes with the package.

    Raises:
        SortimentError: there is none of this name.
    """
    raw = read_table(name)
    if raw.get("kind") is not None:
        raise SortimentError(f"{name} is a table of {raw['kind']}, not of attributes")
    return TypeAdapter(PaperTable).validate_python(raw)


def read_table(name: str) -> dict[str, Any]:
    """A table's file. ``kind`` says what is measured; without it attributes are.

    Raises:
        SortimentError: there is none of this name.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if name not in names:
        raise SortimentError(f"{name} is none of the tables: {', '.join(names)}")
    raw: dict[str, Any] = yaml.load((_FOLDER / f"{name}.yaml").read_text("utf-8"), SafeLoader)  # noqa: S506
    return raw


def compare(
    name: str,
    settings: Sequence[str],
    *,
    data_dir: Path,
    out: Path,
    recipe: str | None = None,
    rows: Sequence[str] = (),
    split: str = "test",
    categories: str | None = None,
    say: Callable[[str], object] = print,
) -> Comparison:
    """Train (where that is not done yet) and measure rows; write Markdown, HTML, JSON and plots.

    Args:
        settings: ``key=value``, for the recipe of every row.
        recipe: instead of the table's. rows: keys; none: all.
        categories: address of a release; its predicted categories make one further row.

    Raises:
        SortimentError: a row is unknown, cannot be trained, or ``out`` holds it by other settings.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SortimentError("compare is for one process; train each row with run under torchrun")
    table = load_table(name)
    unknown = sorted(set(rows) - {row.key for row in table.rows if not row.elsewhere})
    if unknown:
        raise SortimentError(f"rows={','.join(unknown)}: none that is trained here")
    used = recipe or table.recipe
    given = [f"data={data_dir}", *settings]
    chosen = [row for row in table.rows if not row.elsewhere and (not rows or row.key in rows)]
    loaded = {
        row.key: load_recipe(used, [*given, *row.settings, f"out={out / 'rows' / row.key}"])
        for row in chosen
    }
    measuring: _Measuring | None = None
    measures: dict[str, Mapping[str, float]] = {}
    for row in chosen:
        say(f"row {row.key}: {row.name}")
        made = replace(loaded[row.key], name=f"{loaded[row.key].name}-{row.key}")
        train_row(made, say)
        if measuring is None:
            measuring = _Measuring(made, split, table.groups)
        measures[row.key] = measuring.of(made.out, measuring.true_categories)
    if measuring is None:
        raise SortimentError(f"{name} has no row to train")
    if categories is not None and table.best in loaded:
        predicted = measuring.predicted(categories)
        measures[f"{table.best}-predicted"] = measuring.of(out / "rows" / table.best, predicted)
    command = shown_command(name, settings, data_dir, out, recipe=used)
    found = Comparison(
        table,
        name,
        data_dir.name,
        split,
        len(measuring.items),
        measures,
        used,
        command,
    )
    write_pages(found, out)
    return found


def shown_command(name: str, settings: Sequence[str], data_dir: Path, out: Path, **own: str) -> str:
    """What to type for the same comparison elsewhere."""
    command = ["sortiment-train", "compare", name, f"data={data_dir.name}", f"out={out.name}"]
    command += [f"{key}={value}" for key, value in own.items()]
    command += [each for each in settings if each.partition("=")[0] not in NOT_A_MATTER]
    return shlex.join(command)


def train_row(recipe: Recipe, say: Callable[[str], object]) -> None:
    """Run a row's recipe, where its release is not there already."""
    matters = {key: value for key, value in asdict(recipe).items() if key not in NOT_A_MATTER}
    digest = hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()
    mark = recipe.out.with_suffix(".settings")
    if recipe.out.exists():
        if not mark.exists() or mark.read_text() != digest:
            raise SortimentError(
                f"{recipe.out} was made by other settings: remove it or give another out"
            )
        say(f"kept from before: {recipe.out}")
        return
    recipe.out.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)
    run(recipe, say)


class _Measuring:
    """The split that all rows are measured on."""

    def __init__(self, recipe: Recipe, split: str, groups: Sequence[Group]) -> None:
        data = DataSet(recipe.data)
        self.items: list[LabelledProduct] = list(data.products(split))
        self.true_categories = [item.category for item in self.items]
        self._device = Processes(recipe.device).device
        self._progress = sys.stderr.isatty() if recipe.progress is None else recipe.progress
        self._cache = recipe.cache / "releases"
        self._groups = [FrequencyGroup(group.name, group.least) for group in groups]
        self._labels = LabelSpace(tuple(data.taxonomy.label_ids()))
        row_of = self._labels.row_of
        self._true = [
            sorted({row_of.get(each, -1 - place) for place, each in enumerate(item.label_ids)})
            for item in self.items
        ]
        self._true = [[max(row, -1) for row in rows] for rows in self._true]
        counts: NDArray[np.int64] = np.zeros(len(self._labels), dtype=np.int64)
        for item in sampled(data, "train", recipe.limit, recipe.seed):
            for each in item.label_ids:
                if each in row_of:
                    counts[row_of[each]] += 1
        self._train_counts = counts

    def of(self, release_dir: Path, categories: Sequence[str]) -> dict[str, float]:
        """A release's measures, these categories given."""
        release = read_release(release_dir)
        if release.labels != self._labels or release.label_thresholds is None:
            raise SortimentError(f"{release_dir} has other labels than the data's taxonomy")
        with tqdm(total=len(self.items), desc="measure", disable=not self._progress) as bar:
            found = scored_labels(release, self.items, categories, self._device, advance=bar.update)
        return attribute_measures(
            found, self._true, release.label_thresholds, self._train_counts, self._groups
        )

    def predicted(self, address: str) -> list[str]:
        """Categories that a release predicts."""
        release = read_release(fetch_release(address, self._cache))
        predictor = load_predictor(release, self._device, "auto")
        if predictor.category is None:
            raise SortimentError(f"categories={address}: the release has no category model")
        alone = replace(predictor, attribute=None)
        found = predict_products(release, alone, self.items, self._device)
        return found.categories or []


@click.command("compare")
@click.argument("table")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def compare_command(table: str, settings: tuple[str, ...]) -> None:
    """Train a paper's TABLE on one data set and write it beside the paper's own figures.

    The table flagship is of our own: what each part of that system is worth; against=FILE takes
    another system's predictions in, JSON lines of {product_id, category, attributes}.

    data and out are folders; recipe=NAME takes another recipe than the table's, rows=a,b some
    rows only, split=valid another split, categories=RELEASE adds a row with predicted categories.
    Every other KEY=VALUE goes to the recipe of every row, as in `run`:

        sortiment-train compare ave-label-masking data=DIR out=DIR recipe=ave-label-masking-cpu
    """
    own: dict[str, Any] = {}
    rest = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if equals and key in _OWN_KEYS:
            own[key] = value
        else:
            rest.append(setting)
    missing = [key for key in ("data", "out") if key not in own]
    if missing:
        raise click.UsageError(" ".join(f"give {key}=DIR." for key in missing))
    if table in _ABLATIONS:
        _ablate(table, rest, own)
        return
    rows = [row for row in own.get("rows", "").split(",") if row]
    if read_table(table).get("kind") == "categories":
        # It stands on this module.
        from training.category_compare import compare_categories

        if "categories" in own:
            raise click.UsageError(f"categories is for attributes, {table} is of categories.")
        compare_categories(
            table,
            rest,
            data_dir=Path(own["data"]),
            out=Path(own["out"]),
            recipe=own.get("recipe"),
            rows=rows,
            split=own.get("split", "test"),
            say=click.echo,
        )
        click.echo(f"written: {own['out']}")
        return
    found = compare(
        table,
        rest,
        data_dir=Path(own["data"]),
        out=Path(own["out"]),
        recipe=own.get("recipe"),
        rows=rows,
        split=own.get("split", "test"),
        categories=own.get("categories"),
        say=click.echo,
    )
    for key, measures in found.measures.items():
        click.echo(
            f"{key}: micro F1 {measures['micro_f1']:.4f}, macro F1 {measures['macro_f1']:.4f}"
        )
    click.echo(f"written: {own['out']}")


def _ablate(table: str, settings: Sequence[str], own: Mapping[str, str]) -> None:
    from training.ablation import ablate

    found = ablate(
        table,
        settings,
        data_dir=Path(own["data"]),
        out=Path(own["out"]),
        recipe=own.get("recipe"),
        rows=[row for row in own.get("rows", "").split(",") if row],
        split=own.get("split", "test"),
        against=Path(own["against"]) if "against" in own else None,
        say=click.echo,
    )
    for key, measures in found.measures.items():
        click.echo(f"{key}: " + ", ".join(f"{name} {of:.4f}" for name, of in measures.items()))
    click.echo(f"written: {own['out']}")
