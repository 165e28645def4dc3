"""What all tables of ``sortiment-train compare`` share: their files, their rows' recipes and runs.

A row is a recipe with some settings changed. Rows that are done are kept in ``out/rows`` and not
trained again, so a comparison that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from models.errors import SortimentError
from training.data import DataSet
from training.prepared import file_digest
from training.recipe import Recipe
from training.recipe_files import SafeLoader, load_recipe
from training.run import run

__all__ = [
    "Asked",
    "chosen_rows",
    "is_trained",
    "read_table",
    "row_folder",
    "row_recipe",
    "train_row",
]

_FOLDER = Path(__file__).parent / "tables"
# Settings that decide nothing of what a row becomes. Rows that were trained in several folders, or
# on several machines, may be put together in one.
_NOT_A_MATTER = ("about", "cache", "device", "out", "progress", "resume", "tensorboard")
# Rows are compared on the same products by the same counts; names and folders are the table's.
_OF_ALL_ROWS = ("data", "device", "limit", "limit_seed", "name", "out")


class _Row(Protocol):
    @property
    def key(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A comparison as it was asked for, whatever its table holds.

    Attributes:
        settings: ``key=value``, for the recipe of every row, or ``row:key=value``, for one row's.
        data: folder of the data set. out: of rows and pages.
        recipe: instead of the table's. rows: keys; none: all. split: to measure on.
        hardware: what it ran on, for people. notes: Markdown for the end of the page.
    """

    table: str
    data: Path
    out: Path
    settings: Sequence[str] = ()
    recipe: str | None = None
    rows: Sequence[str] = ()
    split: str = "test"
    hardware: str = ""
    notes: str = ""

    def command(self, recipe: str, **own: str) -> str:
        """What to type for the same comparison elsewhere: no paths of this machine."""
        command = ["sortiment-train", "compare", self.table]
        command += [
            f"data={self.data.name}",
            f"out={self.out.name}",
            f"recipe={_elsewhere(recipe)}",
        ]
        command += [f"rows={','.join(self.rows)}"] if self.rows else []
        command += [f"split={self.split}"] if self.split != "test" else []
        command += [f"{key}={value}" for key, value in own.items()]
        for setting in self.settings:
            key, _, value = setting.partition("=")
            if _key_of(setting) not in _NOT_A_MATTER:
                command.append(f"{key}={_elsewhere(value)}")
        return shlex.join(command)

    def chosen(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that were asked for, in the table's order.

        Raises:
            SortimentError: a key is no row's, or stands twice; or a setting's row is none, or
                the setting is not for one row.
        """
        keys = [row.key for row in rows]
        for setting in self.settings:
            row = _row_of(setting)
            if row and row not in keys:
                raise SortimentError(f"{setting}: {row} is none of {', '.join(keys)}")
            if row and _key_of(setting) in _OF_ALL_ROWS:
                raise SortimentError(f"{setting}: {_key_of(setting)} is the same for every row")
        return chosen_rows(rows, self.rows)

    def settings_of(self, key: str) -> list[str]:
        """Of the row alone."""
        mine = [setting for setting in self.settings if _row_of(setting) == key]
        return [setting.partition(":")[2] for setting in mine]

    def settings_of_all(self) -> list[str]:
        """Of every row."""
        return [setting for setting in self.settings if not _row_of(setting)]


def _row_of(setting: str) -> str:
    """``bert`` of ``bert:seed=2``; empty for ``seed=2``."""
    row, colon, _ = setting.partition("=")[0].partition(":")
    return row if colon else ""


def _key_of(setting: str) -> str:
    """``seed`` of ``bert:seed=2`` and of ``seed=2``."""
    return setting.partition("=")[0].rpartition(":")[2]


def _elsewhere(value: str) -> str:
    """A path of this machine by its last part."""
    return Path(value).name if Path(value).is_absolute() else value


def read_table(name: str, kind: str | None = None) -> dict[str, Any]:
    """A table's file; its ``kind`` says what is measured.

    Args:
        kind: which it has to be; None: any.

    Raises:
        SortimentError: there is none of this name, or it is of another kind.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if name not in names:
        raise SortimentError(f"{name} is none of the tables: {', '.join(names)}")
    raw: dict[str, Any] = yaml.load((_FOLDER / f"{name}.yaml").read_text("utf-8"), SafeLoader)  # noqa: S506
    if kind is not None and raw["kind"] != kind:
        raise SortimentError(f"{name} is a table of {raw['kind']}, not of {kind}")
    return raw


def chosen_rows(rows: Iterable[Row], keys: Sequence[str], said: str = "rows") -> list[Row]:
    """The rows of these keys, in the table's order; all of them for none.

    Args:
        said: the setting that names the keys.

    Raises:
        SortimentError: a key is no row's, or stands twice.
    """
    by_key = {row.key: row for row in rows}
    unknown = sorted(set(keys) - by_key.keys())
    if unknown:
        raise SortimentError(f"{said}={','.join(unknown)}: none of {', '.join(by_key)}")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise SortimentError(f"{said}: {', '.join(twice)} stands there twice")
    return [row for key, row in by_key.items() if not keys or key in keys]


def row_folder(out: Path, key: str) -> Path:
    """Where the release of a row is."""
    return out / "rows" / key


def row_recipe(asked: Asked, recipe: str, key: str, settings: Sequence[str]) -> Recipe:
    """The recipe of a row.

    Args:
        settings: the row's own, on top of those that were asked for of every row; those that were
            asked for of this row are on top of them.
    """
    given = [f"data={asked.data}", *asked.settings_of_all(), *settings, *asked.settings_of(key)]
    made = load_recipe(recipe, [*given, f"out={row_folder(asked.out, key)}"])
    return replace(made, name=f"{made.name}-{key}")


def train_row(recipe: Recipe, say: Callable[[str], object]) -> None:
    """Run a row's recipe, where its release is not there already.

    Raises:
        SortimentError: it cannot be trained, or its release was made by other settings or of other
            data.
    """
    if recipe.out.exists():
        if not is_trained(recipe):
            raise SortimentError(
                f"{recipe.out} was made by other settings or of other data: remove it or give "
                "another out"
            )
        say(f"kept from before: {recipe.out}")
        return
    recipe.out.parent.mkdir(parents=True, exist_ok=True)
    _mark(recipe).write_text(_digest(recipe))
    run(recipe, say)


def is_trained(recipe: Recipe) -> bool:
    """Whether a row's release is there, made by these settings."""
    mark = _mark(recipe)
    return recipe.out.exists() and mark.exists() and mark.read_text() == _digest(recipe)


def _mark(recipe: Recipe) -> Path:
    # Not with_suffix: a key may hold a dot.
    return recipe.out.with_name(f"{recipe.out.name}.settings")


def _digest(recipe: Recipe) -> str:
    matters = {key: value for key, value in asdict(recipe).items() if key not in _NOT_A_MATTER}
    # What the folder holds, wherever it is.
    data = DataSet(recipe.data)
    files = data.file("train"), data.file("valid"), data.taxonomy_file
    matters["data"] = list(map(file_digest, files))
    encoder = Path(recipe.system.encoder)
    if encoder.is_dir():
        inside = sorted(path for path in encoder.rglob("*") if path.is_file())
        matters["encoder"] = [(path.name, file_digest(path)) for path in inside]
        matters["system"]["encoder"] = encoder.name
    return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()
