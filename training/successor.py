"""A release that is made from another: its version and its id."""

from __future__ import annotations

import re

from models.errors import SortimentError
from models.release import Release

__all__ = ["next_version", "refuse_same", "version_after"]


def version_after(old: Release, given: str | None) -> str:
    """The version that was given, else the old one, one higher.

    Raises:
        SortimentError: none was given, and the old one cannot be counted on from.
    """
    chosen = given or next_version(old.version)
    if chosen is None:
        raise SortimentError(
            f"version {old.version} of {old.name} ends with no number to count on from: give "
            "--version"
        )
    return chosen


def refuse_same(old: Release, name: str, version: str) -> None:
    """A release that is made from another has an id of its own.

    Raises:
        SortimentError: it is to have the old one's.
    """
    if (name, version) == (old.name, old.version):
        raise SortimentError(f"release {old.id} is there already: give the new one another version")


def next_version(version: str) -> str | None:
    """The version with its last number one higher; None where it ends with no number."""
    found = re.fullmatch(r"(.*?)(\d+)", version)
    return None if found is None else f"{found[1]}{int(found[2]) + 1:0{len(found[2])}d}"
