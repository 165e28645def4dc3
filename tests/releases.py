"""Small releases and a small taxonomy, for tests of whatever reads them."""

from __future__ import annotations

from pathlib import Path

import orjson

from models.manifest import MANIFEST, Manifest
from models.release_writing import _entry
from models.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_json(
    orjson.dumps(
        {
            "name": "shop",
            "version": "7",
            "categories": [
                {"id": "shoes", "name": "Shoes", "parent": None},
                {"id": "boots", "name": "Boots", "parent": "shoes"},
                {"id": "sneakers", "name": "Sneakers", "parent": "shoes"},
                {"id": "bags", "name": "Bags", "parent": None},
            ],
            "attributes": [
                {"name": "Color", "values": ["red", "blue"]},
                {"name": "Size", "values": ["36", "37", "38"]},
            ],
            "relevant": {
                "boots": {"Color": ["red", "blue"], "Size": ["36", "37", "38"]},
                "sneakers": {"Size": ["36", "38"]},
            },
        }
    )
)


def reseal(directory: Path, **changed: object) -> None:
    """Make a release's manifest fit its files again, with some fields changed: a forged release."""
    manifest = orjson.loads((directory / MANIFEST).read_bytes())
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST]
    entries = [_entry(path.relative_to(directory).as_posix(), path) for path in sorted(paths)]
    manifest["files"] = [
        {"path": entry.path, "bytes": entry.size_bytes, "sha256": entry.sha256} for entry in entries
    ]
    (directory / MANIFEST).write_bytes(orjson.dumps(manifest | changed))


def manifest_of(directory: Path) -> Manifest:
    """The manifest of a release directory."""
    return Manifest.parse((directory / MANIFEST).read_bytes(), str(directory))
