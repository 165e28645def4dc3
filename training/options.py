"""Options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path

import click

from training.recipe import local_folder

__all__ = [
    "data_option",
    "device_option",
    "limit_option",
    "new_release_option",
    "release_option",
    "split_option",
    "version_option",
]


def _local_path(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    try:
        return Path(local_folder(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


release_option = click.option(
    "--release", "address", required=True, help="Folder or address of a release."
)
data_option = click.option(
    "--data",
    required=True,
    # Whole: pages are named after the folder, also where it is given as ".".
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Folder of a data set.",
)
split_option = click.option(
    "--split", default="test", show_default=True, help="train, valid or test."
)
limit_option = click.option(
    "--limit", type=click.IntRange(1), help="Only the first so many products."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or another of torch's."
)
new_release_option = click.option(
    "--out", required=True, callback=_local_path, help="Folder of the new release, not there yet."
)
version_option = click.option(
    "--version", help="Of the new release; the old one's, one higher, where not given."
)
