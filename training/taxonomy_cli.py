"""``sortiment-train taxonomy``: import, look at and check taxonomies.

Exit codes: 0 done, 1 a taxonomy has problems (all of them on stderr), 2 wrong usage.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.errors import TaxonomyError
from models.labels import LabelSpace, Masks
from models.taxonomies import FORMATS, detect_format, import_taxonomy
from models.taxonomies.native import write_native
from models.taxonomy import Taxonomy, compile_masks

__all__ = ["taxonomy"]

_SOURCE = click.Path(path_type=Path)


@click.group()
def taxonomy() -> None:
    """Import, look at and check taxonomies."""


@taxonomy.command("import")
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=_SOURCE)
@click.option("--out", required=True, type=_SOURCE, help="The .json or .json.gz file to write.")
@click.option(
    "--locale",
    "locales",
    multiple=True,
    help="shopify: take names in this locale, besides English; several allowed; default: all.",
)
def import_command(
    form: str, sources: tuple[Path, ...], out: Path, locales: tuple[str, ...]
) -> None:
    """Turn a taxonomy into the project's own JSON.

    FORMAT is shopify (the repository's folder), google (taxonomy-with-ids.<locale>.txt; several
    locales are merged by id, the first gives the tree) or native (the project's own JSON).
    """
    if not out.name.endswith((".json", ".json.gz")):
        raise click.UsageError(f"--out must end in .json or .json.gz, got {out.name!r}")
    if not out.absolute().parent.is_dir():
        raise click.UsageError(f"--out: the folder {out.absolute().parent} does not exist")
    try:
        imported = import_taxonomy(form, sources, locales)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except TaxonomyError as error:
        _fail([error])
    try:
        write_native(imported, out)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error}") from error
    click.echo(f"{out}: {_summary(imported)}")


@taxonomy.command()
@click.argument("source", type=_SOURCE)
def stats(source: Path) -> None:
    """Print sizes of a taxonomy in any supported format, and how long it took to load."""
    started = time.perf_counter()
    try:
        loaded = import_taxonomy(detect_format(source), [source])
    except TaxonomyError as error:
        _fail([error])
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    masks = compile_masks(loaded, loaded.leaves, LabelSpace(loaded.label_ids()))
    compile_s = time.perf_counter() - started
    table = Table(title=escape(f"{loaded.name} {loaded.version}"), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for what, figure in _figures(loaded, masks):
        table.add_row(what, figure)
    table.add_row("seconds to load", f"{load_s:.2f}")
    table.add_row("seconds to compile the leaves' masks", f"{compile_s:.2f}")
    Console().print(table)


@taxonomy.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=_SOURCE)
def validate(sources: tuple[Path, ...]) -> None:
    """Check taxonomies in any supported format; print every problem of every one."""
    failed = []
    for source in sources:
        try:
            loaded = import_taxonomy(detect_format(source), [source])
        except TaxonomyError as error:
            failed.append(error)
        else:
            click.echo(f"{source}: {_summary(loaded)}")
    if failed:
        _fail(failed)


def _fail(errors: list[TaxonomyError]) -> NoReturn:
    for error in errors:
        for problem in error.problems:
            click.echo(problem, err=True)
    total = sum(len(error.problems) for error in errors)
    click.echo(f"{total} problem{'s' if total != 1 else ''}", err=True)
    raise SystemExit(1)


def _summary(taxonomy: Taxonomy) -> str:
    return (
        f"{taxonomy.name} {taxonomy.version}, {len(taxonomy.categories):,} categories, "
        f"{len(taxonomy.leaves):,} leaves, {len(taxonomy.attributes):,} attributes, "
        f"{len(taxonomy.label_ids()):,} labels"
    )


def _figures(taxonomy: Taxonomy, masks: Masks) -> list[tuple[str, str]]:
    per_leaf = np.diff(masks.indptr)
    depths = [len(taxonomy.path(leaf)) for leaf in taxonomy.leaves]
    distinct = len(np.unique(masks.indices))
    return [
        ("categories", f"{len(taxonomy.categories):,}"),
        ("departments", f"{len(taxonomy.departments):,}"),
        ("leaves", f"{len(taxonomy.leaves):,}"),
        ("levels of the deepest leaf", f"{max(depths):,}"),
        ("attributes", f"{len(taxonomy.attributes):,}"),
        ("labels (attribute, value)", f"{len(taxonomy.label_ids()):,}"),
        ("labels relevant to a leaf", f"{distinct:,}"),
        ("triples (leaf, attribute, value)", f"{len(masks.indices):,}"),
        ("relevant labels per leaf, mean", f"{per_leaf.mean():.1f}"),
        ("relevant labels per leaf, most", f"{per_leaf.max():,}"),
        ("locales", ", ".join(taxonomy.locales) or "none named"),
    ]
