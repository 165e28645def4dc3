"""The command ``sortiment-train refresh``."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import click
import orjson

from models.errors import SortimentError
from models.release import read_release
from models.release_store import fetch_release
from training.gates import Gates
from training.options import data_option, new_release_option, release_option, version_option
from training.recipe import FETCHED_RELEASES
from training.recipe_files import RecipeError, load_recipe
from training.refresh import RefreshRefused, RefreshReport, recipe_for, refresh
from training.successor import version_after

__all__ = ["refresh_command"]

_OWN = ("data", "name", "out", "version")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("refresh")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@release_option
@data_option
@click.option(
    "--new",
    required=True,
    multiple=True,
    type=_FILE,
    help="File of new labelled products, .jsonl(.gz) or .parquet; may come again. Of one product "
    "the last label counts.",
)
@new_release_option
@version_option
@click.option(
    "--recipe", help="How to train; where not given the usual one of the release's architecture."
)
@click.option(
    "--replay",
    type=click.IntRange(0),
    help="Old training products that are trained on again; four to each new one, at least 2,000, "
    "where not given.",
)
@click.option(
    "--hold",
    type=click.FloatRange(0, 0.4),
    default=0.2,
    show_default=True,
    help="Share of the new products that go to valid, and as many to the comparison.",
)
@click.option(
    "--split", default="test", show_default=True, help="Of the data set, to compare releases by."
)
@click.option(
    "--gate",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="By how much the new release may be worse: overall, department, calibration, coverage, "
    "attributes; significance of the test by department.",
)
@click.option("--report", type=_FOLDER, help="Folder for refresh.json and refresh.md.")
def refresh_command(
    settings: tuple[str, ...],
    address: str,
    data: Path,
    new: tuple[Path, ...],
    out: Path,
    version: str | None,
    recipe: str | None,
    replay: int | None,
    hold: float,
    split: str,
    given: tuple[str, ...],
    report: Path | None,
) -> None:
    """Train a release on with new labelled products, and publish the result if it is no worse.

    Old and new release answer the same held-out products. Where a gate is not passed, it says
    why, publishes nothing and exits with 3. KEY=VALUE changes the recipe, as in `run`.
    """
    own = [each for each in settings if each.partition("=")[0] in _OWN]
    if own:
        raise RecipeError([f"command line: {each}: give it as an option" for each in own])
    gates = _gates(given)
    old = read_release(fetch_release(address, FETCHED_RELEASES))
    chosen = version_after(old, version)
    loaded = load_recipe(recipe or recipe_for(old), [*settings, "data=.", "out=.", "name=."])
    loaded = replace(loaded, data=data, out=out, name=old.name, version=chosen)
    if loaded.progress is None:
        loaded = replace(loaded, progress=sys.stderr.isatty())
    try:
        found = refresh(
            old.directory,
            loaded,
            new,
            gates=gates,
            replay=replay,
            hold=hold,
            compare_on=split,
            say=click.echo,
        )
    except RefreshRefused as refused:
        _tell(refused.report, report)
        raise
    _tell(found, report)
    click.echo(f"release {found.new}: {found.published}")


def _gates(given: tuple[str, ...]) -> Gates:
    known = {each.name for each in fields(Gates)}
    found: dict[str, float] = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            if name not in known:
                raise ValueError
            found[name] = float(value)
        except ValueError:
            raise click.BadParameter(
                f"{each!r} is not NAME=NUMBER of {', '.join(sorted(known))}", param_hint="--gate"
            ) from None
        if not 0 <= found[name] <= 1:
            raise click.BadParameter(f"{each!r} is not from 0 to 1", param_hint="--gate")
    return Gates(**found)


def _tell(report: RefreshReport, folder: Path | None) -> None:
    """Gates and figures to standard output, and into files.

    Raises:
        SortimentError: a file cannot be written.
    """
    lines = [f"{'passed' if each.passed else 'REFUSED'}  {each}" for each in report.gates]
    for line in lines:
        click.echo(line)
    for release, figures in report.figures.items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        click.echo(f"{release}: {shown}")
    if folder is None:
        return
    document = orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "refresh.json").write_bytes(document)
        (folder / "refresh.md").write_text(_markdown(report), encoding="utf-8")
    except OSError as error:
        raise SortimentError(f"the report cannot be written into {folder}: {error}") from error


def _markdown(report: RefreshReport) -> str:
    ended = "published" if report.published is not None else "not published"
    lines = [f"# {report.old} to {report.new}: {ended}", ""]
    lines += [f"- {line}" for line in report.data.lines()]
    lines += ["", "| gate | before | now | allowed | products | |", "|---|---:|---:|---:|---:|---|"]
    for each in report.gates:
        verdict = "passed" if each.passed else "**refused**"
        name = each.gate.replace("|", "\\|")
        lines.append(
            f"| {name} | {each.old:.4f} | {each.new:.4f} | {each.worst:.4f} | {each.products:,} | "
            f"{verdict}{' ' if each.note else ''}{each.note} |"
        )
    return "\n".join(lines) + "\n"
