"""Files that are there whole or not at all, whatever stops the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import SortimentError

__all__ = ["writing", "written_whole"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to be written to, which then takes its place, on the disk.

    Raises:
        SortimentError: it cannot be written (the disk is full); what was at ``path`` stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield fresh
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the disk refuses within the block is told with the name of ``path``.

    Raises:
        SortimentError: an OSError was raised.
    """
    try:
        yield
    except OSError as error:
        raise SortimentError(f"{path} cannot be written: {error}") from error
