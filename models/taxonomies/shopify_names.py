"""Localized names of the Shopify taxonomy.

``data/localizations/{categories,attributes,values}/<locale>.yml`` is their source. A locale that
it lacks is read from what the repository generates: ``dist/<locale>/categories.txt``,
``attributes.json`` and ``attribute_values.json``, whose numeric ids are those of ``data``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from models.taxonomies.draft import Draft, Place
from models.taxonomies.yaml_events import YamlMap, read_yaml

__all__ = ["Names", "read_names"]

_KINDS = ("categories", "attributes", "values")

# kind -> id -> locale -> name
Names = Mapping[str, Mapping[str, Mapping[str, str]]]
_Found = dict[str, dict[str, dict[str, str]]]


def read_names(
    draft: Draft, root: Path, wanted: set[str], default: str, ids: Mapping[str, Mapping[str, str]]
) -> Names:
    """Names in every locale but the default one.

    Args:
        draft: gets the problems.
        root: the repository's folder.
        wanted: locales, lower case; empty: all there are.
        default: the locale of ``data/*.yml``, which needs no other names.
        ids: for attributes and values, from the ids that ``dist`` uses to the project's.
    """
    found: _Found = {kind: {} for kind in _KINDS}
    source = {path.stem for path in (root / "data" / "localizations").glob("*/*.yml")}
    dist = {path.name for path in (root / "dist").glob("*") if path.is_dir()}
    known = {tag.lower(): tag for tag in dist | source if tag != default}
    for missing in sorted(wanted - known.keys()):
        draft.problem(
            draft.source,
            f"no names in the locale {missing!r}; there are: {', '.join(sorted(known)) or 'none'}",
        )
    for locale in sorted(known.keys() & wanted if wanted else known):
        tag = known[locale]
        if tag in source:
            for kind in _KINDS:
                _read_source(draft, root, kind, tag, found[kind])
        else:
            _read_dist(draft, root / "dist" / tag, locale, ids, found)
    return found


def _read_source(
    draft: Draft, root: Path, kind: str, tag: str, found: dict[str, dict[str, str]]
) -> None:
    path = root / "data" / "localizations" / kind / f"{tag}.yml"
    if not path.exists():
        return
    document = read_yaml(draft, path, defines_ids=False)
    if document is None:
        return
    top = document.get(tag) if isinstance(document, YamlMap) else None
    entries = top.get(kind) if isinstance(top, YamlMap) else None
    if not isinstance(entries, YamlMap):
        draft.problem(str(path), f"must map {tag!r} to {kind!r} to the names by id")
        return
    locale = tag.lower()
    for own, entry in entries.items():
        name = entry.get("name") if isinstance(entry, YamlMap) else None
        if isinstance(name, str):
            found.setdefault(own, {})[locale] = name
        else:
            line = entry.line if isinstance(entry, YamlMap) else entries.line
            draft.problem(Place(f"{path}:", line), f"{own!r} has no name")


def _read_dist(
    draft: Draft, folder: Path, locale: str, ids: Mapping[str, Mapping[str, str]], found: _Found
) -> None:
    for key, name in _dist_categories(draft, folder / "categories.txt").items():
        found["categories"].setdefault(key, {})[locale] = name
    for file, kind in (("attributes.json", "attributes"), ("attribute_values.json", "values")):
        for key, name in _dist_pairs(draft, folder / file, kind):
            if key in ids[kind]:
                found[kind].setdefault(ids[kind][key], {})[locale] = name


def _dist_categories(draft: Draft, path: Path) -> Mapping[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        draft.problem(str(path), f"cannot be read: {error}")
        return {}
    names = {}
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        gid, separator, full_path = line.partition(" : ")
        if separator:
            names[gid.strip().rpartition("/")[2]] = full_path.rpartition(" > ")[2]
        else:
            draft.problem(Place(f"{path}:", number), f"not '<id> : <path>': {line[:80]!r}")
    return names


def _dist_pairs(draft: Draft, path: Path, kind: str) -> list[tuple[str, str]]:
    """Numeric id and name of each record; handle and name of its extended attributes."""
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        draft.problem(str(path), f"cannot be read: {error}")
        return []
    records = document.get(kind) if isinstance(document, dict) else None
    if not isinstance(records, list):
        draft.problem(str(path), f"must hold {kind!r}, a list of objects")
        return []
    pairs = []
    for number, record in enumerate(records):
        found = _dist_pair(record, "id")
        extended = record.get("extended_attributes", []) if found else []
        more = [_dist_pair(e, "handle") for e in extended] if isinstance(extended, list) else [None]
        for pair in (found, *more):
            if pair is None:
                draft.problem(
                    Place(f"{path}: {kind}[", number, "]"),
                    "must have an id or a handle, and a name",
                )
            else:
                pairs.append(pair)
    return pairs


def _dist_pair(record: Any, field: str) -> tuple[str, str] | None:
    if not isinstance(record, dict):
        return None
    key, name = record.get(field), record.get("name")
    if not isinstance(key, str) or not isinstance(name, str):
        return None
    return key.rpartition("/")[2], name
