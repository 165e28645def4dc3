"""The command ``sortiment-train compare``; which kind of table it is, the table's file says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from training.ablation import ablate
from training.attribute_compare import compare_attributes
from training.category_compare import compare_categories
from training.table_rows import Asked, read_table

__all__ = ["compare_command"]

Measures = Mapping[str, Mapping[str, float]]
Own = Mapping[str, str]


def _attributes(asked: Asked, own: Own) -> Measures:
    against = [Path(path) for path in own.get("against", "").split(",") if path]
    categories = own.get("categories")
    found = compare_attributes(asked, categories=categories, against=against, say=click.echo)
    shown = ("micro_f1", "macro_f1")
    return {key: {name: of[name] for name in shown} for key, of in found.measures.items()}


def _categories(asked: Asked, own: Own) -> Measures:
    found = compare_categories(asked, say=click.echo)
    shown = ("department_accuracy", "category_accuracy")
    return {key: {name: of.measures[name] for name in shown} for key, of in found.results.items()}


def _parts(asked: Asked, own: Own) -> Measures:
    against = Path(own["against"]) if "against" in own else None
    return ablate(asked, against=against, say=click.echo).measures


# What compares, and settings that only tables of this kind have.
_KINDS: Mapping[str, tuple[Callable[[Asked, Own], Measures], tuple[str, ...]]] = {
    "attributes": (_attributes, ("against", "categories")),
    "categories": (_categories, ()),
    "parts": (_parts, ("against",)),
}
_OF_ALL = ("data", "hardware", "notes", "out", "recipe", "rows", "split")
_OWN_KEYS = frozenset(_OF_ALL) | {key for _, keys in _KINDS.values() for key in keys}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"notes={path} cannot be read: {error}") from error


@click.command("compare")
@click.argument("table")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def compare_command(table: str, settings: tuple[str, ...]) -> None:
    """Train a TABLE's rows on one data set and write them beside the paper's own figures.

    data and out are folders; recipe=NAME takes another recipe than the table's, rows=a,b some
    rows only, split=valid another split; hardware=TEXT stands on the page, and what
    the file notes=FILE says, in Markdown, below its tables. Tables of attributes:
    categories=RELEASE adds a row with predicted categories, against=xr-linear.jsonl,... fills rows
    that are not trained here, JSON lines of {product_id, attributes: [[name, value, score]]}.
    Tables of a system's parts: against=FILE takes another system's predictions in, JSON lines of
    {product_id, category, attributes: [[name, value]]}. Every other KEY=VALUE goes to the recipe
    of every row, as in `run`, or to one row's as ROW:KEY=VALUE (bert:system.learning_rate=1e-4):

    \b
        sortiment-train compare ave-label-masking data=DIR out=DIR recipe=ave-label-masking-cpu
    """
    own: dict[str, str] = {}
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
    kind = read_table(table)["kind"]
    compare, of_kind = _KINDS[kind]
    strange = sorted(own.keys() - {*_OF_ALL, *of_kind})
    if strange:
        raise click.UsageError(f"{', '.join(strange)}: not for {table}, a table of {kind}.")
    asked = Asked(
        table=table,
        data=Path(own["data"]).resolve(),
        out=Path(own["out"]).resolve(),
        settings=rest,
        recipe=own.get("recipe"),
        rows=[row for row in own.get("rows", "").split(",") if row],
        split=own.get("split", "test"),
        hardware=own.get("hardware", ""),
        notes=_read(Path(own["notes"])) if "notes" in own else "",
    )
    for key, measures in compare(asked, own).items():
        click.echo(f"{key}: " + ", ".join(f"{name} {of:.4f}" for name, of in measures.items()))
    click.echo(f"written: {asked.out}")
