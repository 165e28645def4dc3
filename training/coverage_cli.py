"""``sortiment-train coverage``: a release's thresholds measured, and their page."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm

from models.release_store import fetch_release
from training.coverage import coverage
from training.coverage_page import write_coverage
from training.options import (
    data_option,
    device_option,
    limit_option,
    release_option,
    split_option,
)
from training.processes import Processes
from training.recipe import FETCHED_RELEASES

__all__ = ["coverage_command"]


@click.command("coverage")
@release_option
@data_option
@split_option
@limit_option
@click.option(
    "--target",
    type=click.FloatRange(0, 1),
    help="Accuracy that was wanted; the release's own where not given.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for DATA-coverage.md, .html, .json and plots.",
)
@click.option("--about", multiple=True, help="A line for the page: hardware, how it was trained.")
@device_option
def coverage_command(
    address: str,
    data: Path,
    split: str,
    limit: int | None,
    target: float | None,
    out: Path,
    about: tuple[str, ...],
    device: str,
) -> None:
    """Measure what a release assigns, how much of it is right, and whether its target is kept."""
    chosen = Processes(device).device
    with tqdm(desc="coverage", unit="product", disable=not sys.stderr.isatty()) as bar:
        found = coverage(
            fetch_release(address, FETCHED_RELEASES),
            data,
            split=split,
            limit=limit,
            target=target,
            device=chosen,
            advance=bar.update,
        )
    page = write_coverage(found, out, about)
    click.echo(page.read_text(encoding="utf-8"))
