"""New labelled products of the small shop, and the shop under a changed taxonomy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson

from tests.tiny_shop import COLORS

__all__ = ["labelled", "write_changed_shop", "write_lines"]


def labelled(number: int, title: str, category: str, color: str) -> dict[str, Any]:
    """A line of labelled products."""
    return {
        "product_id": f"new-{number}",
        "title": f"{title} {color}",
        "category": category,
        "attributes": [{"name": "Color", "value": color}],
    }


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    """A file of them."""
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
    return path


def write_changed_shop(shop: Path, data: Path) -> Path:
    """A leaf and a value more, a leaf and its products gone, others in another order."""
    data.mkdir()
    taxonomy = json.loads(gzip.decompress((shop / "taxonomy.json.gz").read_bytes()))
    nodes = [node for node in taxonomy["categories"] if node["id"] != "home/革"]
    taxonomy["categories"] = [*nodes[::-1], {"id": "wear/gown", "name": "gown", "parent": "wear"}]
    taxonomy["version"] = "2"
    taxonomy["attributes"][0]["values"] = ["green", *COLORS]
    del taxonomy["relevant"]["home/革"]
    taxonomy["relevant"] = {leaf: {"Color": ["green", *COLORS]} for leaf in taxonomy["relevant"]}
    (data / "taxonomy.json").write_text(json.dumps(taxonomy))
    for split in ("train", "valid", "test"):
        lines = gzip.decompress((shop / f"{split}.jsonl.gz").read_bytes()).splitlines()
        kept = [line for line in lines if json.loads(line)["category"] != "home/革"]
        (data / f"{split}.jsonl").write_bytes(b"\n".join(kept) + b"\n")
    return data
