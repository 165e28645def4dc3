"""Files that are there whole or not at all, whatever stops the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import SortimentError

__all__ = ["written_whole"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to be written to, which then takes its place, on the disk.

    Raises:
        SortimentError: it cannot be written (the disk is full); what was at ``path`` stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SortimentError(f"{path} cannot be written: {error}") from error
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise SortimentError(f"{path} cannot be written: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
