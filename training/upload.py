"""The command ``sortiment-train upload``."""

from __future__ import annotations

from pathlib import Path

import click

from models.release import read_release
from models.release_store import upload_release

__all__ = ["upload_command"]


@click.command("upload")
@click.argument("release", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("address")
def upload_command(release: Path, address: str) -> None:
    """Copy a release to where workers fetch it from.

    RELEASE is its folder; it is verified first. ADDRESS is where it shall lie, anywhere that
    fsspec writes (s3://bucket/releases/shop/2 with the package s3fs, gs:// with gcsfs, ...):
    workers see it there only when all of it is. A release that is there is never overwritten.
    """
    found = read_release(release)
    click.echo(f"release {found.id}: {upload_release(found.directory, address)}")
