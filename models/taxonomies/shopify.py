"""The Shopify product taxonomy, as its repository lays it out.

| file | what is read |
|---|---|
| ``VERSION`` | the version |
| ``data/categories/*.yml`` | id, name, ``children`` (they make the tree), ``attributes`` |
| ``data/attributes.yml`` | base attributes with their values; extended ones with ``values_from`` |
| ``data/values.yml`` | the values' names |
| ``data/localizations``, ``dist`` | names by locale: models/taxonomies/shopify_names.py |

Ids are the repository's own: ``ap-2-1``, and the ``friendly_id`` of attributes and values. The
attributes that a category lists are relevant to it with all of their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.taxonomies.draft import NO_NAMES, Draft, Place
from models.taxonomies.shopify_names import Names, read_names
from models.taxonomies.yaml_events import YamlList, YamlMap, YamlValue, read_yaml
from models.taxonomy import Taxonomy, Value

__all__ = ["import_shopify"]

# The language of the names in data/*.yml.
_LOCALE = "en"

_Records = list[tuple[Place, YamlMap]]


def import_shopify(root: Path, locales: Sequence[str] = ()) -> Taxonomy:
    """Read the repository's folder.

    Args:
        root: the folder that holds ``data``.
        locales: take names in these locales only, besides English; empty: all there are.

    Raises:
        TaxonomyError: with every problem found, over all files.
    """
    draft = Draft(str(root))
    try:
        draft.head("shopify", (root / "VERSION").read_text(encoding="utf-8").strip(), _LOCALE)
    except (OSError, UnicodeDecodeError) as error:
        draft.problem(str(root / "VERSION"), f"cannot be read: {error}")
    categories = _categories(draft, root)
    base, extended = _attributes(draft, root / "data" / "attributes.yml")
    value_file = root / "data" / "values.yml"
    values = _file_records(draft, value_file)
    names = read_names(
        draft,
        root,
        {each.lower() for each in locales} - {_LOCALE},
        _LOCALE,
        {
            "categories": {},
            "attributes": {**_dist_ids(base, "id"), **_dist_ids(extended, "handle")},
            "values": _dist_ids(values, "id"),
        },
    )
    _add_attributes(draft, base, extended, _values_by_id(draft, values, names), names)
    _add_categories(draft, categories, names)
    return draft.build()


def _file_records(draft: Draft, path: Path) -> _Records:
    found = read_yaml(draft, path)
    return [] if found is None else _records(draft, path, found, "the file")


def _records(draft: Draft, path: Path, found: YamlValue, what: str) -> _Records:
    if not isinstance(found, YamlList):
        draft.unreadable(str(path), f"{what} must hold a list of mappings")
        return []
    records = []
    for number, each in enumerate(found):
        if isinstance(each, YamlMap):
            records.append((Place(f"{path}:", each.line), each))
        else:
            draft.problem(Place(f"{path}: item ", number), f"{what} must hold mappings only")
    return records


def _categories(draft: Draft, root: Path) -> _Records:
    folder = root / "data" / "categories"
    paths = sorted(folder.glob("*.yml"))
    if not paths:
        draft.unreadable(
            str(folder), "holds no .yml file; give the folder of the Shopify taxonomy repository"
        )
    records: _Records = []
    for path in paths:
        records += _file_records(draft, path)
    return records


def _attributes(draft: Draft, path: Path) -> tuple[_Records, _Records]:
    found = read_yaml(draft, path)
    if found is None:
        return [], []
    if not isinstance(found, YamlMap):
        draft.unreadable(str(path), "must hold base_attributes and extended_attributes")
        return [], []
    base = _records(draft, path, found.get("base_attributes"), "base_attributes")
    if found.get("extended_attributes") is None:
        return base, []
    return base, _records(draft, path, found["extended_attributes"], "extended_attributes")


def _dist_ids(records: _Records, field: str) -> Mapping[str, str]:
    pairs = ((each.get(field), each.get("friendly_id")) for _, each in records)
    return {key: own for key, own in pairs if isinstance(key, str) and isinstance(own, str)}


def _values_by_id(draft: Draft, records: _Records, names: Names) -> Mapping[str, Value]:
    values: dict[str, Value] = {}
    places: dict[str, Place] = {}
    for place, record in records:
        own = record.get("friendly_id")
        localized = names["values"].get(own, NO_NAMES) if isinstance(own, str) else NO_NAMES
        value = draft.value(place, own, record.get("name"), localized)
        if value is None:
            continue
        if value.id in values:
            draft.problem(
                place, f"value {value.id!r} is defined twice, first at {places[value.id]}"
            )
        else:
            values[value.id], places[value.id] = value, place
    return values


def _add_attributes(
    draft: Draft, base: _Records, extended: _Records, values: Mapping[str, Value], names: Names
) -> None:
    for place, record in base:
        own = record.get("friendly_id")
        kept = []
        for value_id in _texts(draft, place, record, "values"):
            if value_id in values:
                kept.append(values[value_id])
            elif not draft.incomplete:
                draft.problem(
                    place, f"attribute {own!r}: value {value_id!r} is not defined in values.yml"
                )
        draft.attribute(
            place, own, record.get("name"), kept, names["attributes"].get(str(own), NO_NAMES)
        )
    for place, record in extended:
        own = record.get("friendly_id")
        localized = names["attributes"].get(str(own), NO_NAMES)
        origin = record.get("values_from") or ""
        draft.attribute(place, own, record.get("name"), [], localized, origin)


def _add_categories(draft: Draft, records: _Records, names: Names) -> None:
    known = {str(record.get("id")) for _, record in records}
    parent_of: dict[str, str] = {}
    for place, record in records:
        own = str(record.get("id"))
        for child in _texts(draft, place, record, "children"):
            if child not in known and not draft.incomplete:
                draft.problem(place, f"{own!r} lists the child {child!r}, which is not defined")
            elif child in parent_of:
                draft.problem(
                    place, f"the child {child!r} of {own!r} is already one of {parent_of[child]!r}"
                )
            parent_of.setdefault(child, own)
    for place, record in records:
        own = str(record.get("id"))
        above = own.rpartition("-")[0]
        if own not in parent_of and above and not draft.incomplete:
            draft.problem(place, f"{own!r} is not among the children of {above!r}: missing parent")
        draft.category(
            place,
            record.get("id"),
            record.get("name"),
            parent_of.get(own),
            names["categories"].get(own, NO_NAMES),
        )
        attributes = _texts(draft, place, record, "attributes")
        if len(set(attributes)) < len(attributes):
            draft.problem(place, f"category {own!r} lists an attribute twice")
        if attributes:
            draft.relevant(place, own, dict.fromkeys(attributes, True))


def _texts(draft: Draft, place: Place, record: YamlMap, field: str) -> Sequence[str]:
    found = record.get(field)
    if found is None:
        return ()
    if not isinstance(found, YamlList):
        draft.problem(place, f"{field} must be a list")
        return ()
    checked = [draft.text(place, f"an item of {field}", each) for each in found]
    return [each for each in checked if each is not None]
