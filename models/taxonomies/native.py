"""The project's own JSON (docs/taxonomy.md describes it): read, checked, written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from models.errors import TaxonomyError
from models.taxonomies.draft import Draft, Place
from models.taxonomy import Attribute, Taxonomy, Value

__all__ = ["dump_native", "import_native", "parse_native", "read_native", "write_native"]

# Shopify's taxonomy with two languages is about 4 MB; a gzip bomb ends here.
_MAX_BYTES = 256 * 1024 * 1024
_KEYS = {"name", "version", "locale", "categories", "attributes", "relevant"}


def import_native(path: Path) -> Taxonomy:
    """Read a ``.json`` or ``.json.gz`` file.

    Raises:
        TaxonomyError: with every problem found, an unreadable file included.
    """
    try:
        with path.open("rb") as file:
            return read_native(file, str(path), packed=path.suffix == ".gz")
    except OSError as error:
        raise TaxonomyError([f"{path}: cannot be read: {error}"]) from error


def read_native(file: BinaryIO, source: str, *, packed: bool) -> Taxonomy:
    """Read an open file, gzip if ``packed``; ``source`` names it in messages.

    Raises:
        TaxonomyError: with every problem found, an unreadable file included.
    """
    try:
        with gzip.GzipFile(fileobj=file) if packed else nullcontext(file) as plain:
            data = plain.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TaxonomyError([f"{source}: cannot be read: {error}"]) from error
    if len(data) > _MAX_BYTES:
        raise TaxonomyError([f"{source}: more than {_MAX_BYTES} bytes, which no taxonomy has"])
    return parse_native(data, source)


def parse_native(data: bytes, source: str) -> Taxonomy:
    """Parse and check; ``source`` names the file in messages.

    Raises:
        TaxonomyError: with every problem found.
    """
    draft = Draft(source)
    document = _decode(draft, data)
    if isinstance(document, dict):
        _read_document(draft, document)
    elif not draft.problems:
        draft.unreadable(source, "the file must hold one JSON object")
    return draft.build()


def _decode(draft: Draft, data: bytes) -> Any:
    # The standard parser, not orjson: only it shows keys that occur twice, of which one is lost.
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            counts = Counter(key for key, _ in items)
            for key in sorted(key for key, count in counts.items() if count > 1):
                draft.problem(draft.source, f"the key {key!r} occurs twice in one object")
        return made

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        place = Place(f"{draft.source}:", error.lineno)
        draft.unreadable(place, f"not JSON: {error.msg} (column {error.colno})")
    except UnicodeDecodeError as error:
        draft.unreadable(draft.source, f"not UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        draft.unreadable(draft.source, "nested too deeply to be a taxonomy")
    except ValueError as error:
        draft.unreadable(draft.source, f"not JSON: {error}")
    return None


def _read_document(draft: Draft, document: Mapping[str, Any]) -> None:
    for key in sorted(document.keys() - _KEYS):
        draft.problem(draft.source, f"unknown field {key!r}; known: {', '.join(sorted(_KEYS))}")
    draft.head(document.get("name"), document.get("version"), document.get("locale", ""))
    for place, record in _records(draft, document, "categories"):
        draft.category(
            place,
            record.get("id"),
            record.get("name"),
            record.get("parent"),
            record.get("names"),
        )
    for place, record in _records(draft, document, "attributes"):
        _read_attribute(draft, place, record)
    relevant = document.get("relevant", {})
    if not isinstance(relevant, dict):
        draft.problem(draft.source, "relevant must map category ids to attributes")
        return
    for category_id, entry in relevant.items():
        draft.relevant(f"{draft.source}: relevant[{category_id!r}]", category_id, entry)


def _records(draft: Draft, document: Mapping[str, Any], field: str) -> list[tuple[Place, Any]]:
    records = document.get(field)
    if not isinstance(records, list):
        draft.unreadable(draft.source, f"{field} must be a list of objects")
        return []
    kept = []
    for number, record in enumerate(records):
        place = Place(f"{draft.source}: {field}[", number, "]")
        if isinstance(record, dict):
            kept.append((place, record))
        else:
            draft.problem(place, "must be an object")
    return kept


def _read_attribute(draft: Draft, place: Place, record: Mapping[str, Any]) -> None:
    name = record.get("name")
    attribute_id = record.get("id", name)
    values: list[Value] = []
    raw = record.get("values", [] if "values_from" in record else None)
    if not isinstance(raw, list):
        draft.problem(place, f"values of attribute {attribute_id!r} must be a list")
        raw = []
    for each in raw:
        if isinstance(each, dict):
            label = each.get("name")
            value = draft.value(place, each.get("id", label), label, each.get("names"))
        else:
            value = draft.value(place, each, each)
        if value is not None:
            values.append(value)
    draft.attribute(
        place, attribute_id, name, values, record.get("names"), record.get("values_from")
    )


def dump_native(taxonomy: Taxonomy) -> bytes:
    """UTF-8 JSON that ``parse_native`` reads back to an equal taxonomy."""
    document: dict[str, Any] = {"name": taxonomy.name, "version": taxonomy.version}
    if taxonomy.locale:
        document["locale"] = taxonomy.locale
    document["categories"] = [
        _named({"id": each.id, "name": each.name, "parent": each.parent}, each.names)
        for each in taxonomy.categories.values()
    ]
    document["attributes"] = [_attribute_record(each) for each in taxonomy.attributes.values()]
    document["relevant"] = {
        category_id: {key: True if ids is None else list(ids) for key, ids in entry.items()}
        for category_id, entry in taxonomy.relevant.items()
    }
    return orjson.dumps(document) + b"\n"


def write_native(taxonomy: Taxonomy, path: Path) -> None:
    """Write a ``.json`` or ``.json.gz`` file whole: a reader sees the old file or the new one."""
    data = dump_native(taxonomy)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # the same taxonomy gives the same bytes
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _attribute_record(attribute: Attribute) -> dict[str, Any]:
    record: dict[str, Any] = {} if attribute.id == attribute.name else {"id": attribute.id}
    record = _named({**record, "name": attribute.name}, attribute.names)
    if attribute.values_from is None:
        record["values"] = [_value_record(value) for value in attribute.values]
    else:
        record["values_from"] = attribute.values_from
    return record


def _value_record(value: Value) -> str | dict[str, Any]:
    if value.id == value.name and not value.names:
        return value.id
    return _named({"id": value.id, "name": value.name}, value.names)


def _named(record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {**record, "names": dict(names)} if names else record
