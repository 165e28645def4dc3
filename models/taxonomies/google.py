"""Google's product taxonomy: ``taxonomy-with-ids.<locale>.txt``, one category a line.

A line is ``<id> - <department> > ... > <name>``; the first line is a comment with the version.
The format has no attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from models.taxonomies.draft import Draft, Place
from models.taxonomy import Taxonomy

__all__ = ["import_google"]

_VERSION = re.compile(r"#\s*Google_Product_Taxonomy_Version:\s*(\S+)\s*")
_LINE = re.compile(r"([0-9]{1,18}) - (\S.*)")
_FILE = re.compile(r"taxonomy-with-ids\.([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)\.txt")


class _Row(NamedTuple):
    line: int
    id: str
    path: tuple[str, ...]


def import_google(paths: Sequence[Path]) -> Taxonomy:
    """Read one file, or one per locale, merged by id.

    The first file gives the tree, the version and the default names; the others give names. Ids
    that only the others have are left out: Google's locales are published at different times.

    Args:
        paths: one file or more.

    Raises:
        TaxonomyError: with every problem found.
        ValueError: no path.
    """
    if not paths:
        raise ValueError("give one of Google's files, or one for each locale")
    draft = Draft(str(paths[0]))
    names: dict[str, dict[str, str]] = {}
    for path in paths[1:]:
        locale = _locale(path)
        if not locale:
            draft.problem(str(path), "name it taxonomy-with-ids.<locale>.txt to say its locale")
        _, rows = _read(draft, path)
        for row in rows:
            names.setdefault(row.id, {})[locale] = row.path[-1]
    version, rows = _read(draft, paths[0])
    if not draft.incomplete:
        draft.head("google", version, _locale(paths[0]))
    _add_tree(draft, paths[0], rows, names)
    return draft.build()


def _locale(path: Path) -> str:
    match = _FILE.fullmatch(path.name)
    return match[1].lower() if match else ""


def _read(draft: Draft, path: Path) -> tuple[str | None, list[_Row]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        draft.unreadable(str(path), f"cannot be read: {error}")
        return None, []
    except UnicodeDecodeError as error:
        draft.unreadable(str(path), f"not UTF-8: {error.reason} at byte {error.start}")
        return None, []
    lines = text.split("\n")
    version = _VERSION.fullmatch(lines[0].rstrip("\r"))
    if version is None:
        draft.problem(
            Place(f"{path}:", 1), "the first line must be '# Google_Product_Taxonomy_Version: ...'"
        )
    rows = []
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            draft.problem(Place(f"{path}:", number), f"not '<id> - <path>': {line[:80]!r}")
        else:
            rows.append(_Row(number, match[1], tuple(match[2].split(" > "))))
    return version[1] if version else "", rows


def _add_tree(
    draft: Draft, path: Path, rows: Sequence[_Row], names: Mapping[str, Mapping[str, str]]
) -> None:
    id_of: dict[tuple[str, ...], _Row] = {}
    for row in rows:
        first = id_of.setdefault(row.path, row)
        if first is not row:
            draft.problem(
                Place(f"{path}:", row.line),
                f"the path {' > '.join(row.path)!r} occurs twice, first in line {first.line}",
            )
    for row in rows:
        place = Place(f"{path}:", row.line)
        parent = id_of.get(row.path[:-1])
        if parent is None and len(row.path) > 1:
            draft.problem(
                place, f"category {row.id!r}: no line has the path {' > '.join(row.path[:-1])!r}"
            )
        draft.category(
            place, row.id, row.path[-1], parent.id if parent else None, names.get(row.id)
        )
