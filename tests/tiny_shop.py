"""A data set of a few hundred products, small enough to be learned within a second."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

LEAVES = {
    "wear/dress": ("dress", "gown"),
    "wear/shoe": ("shoe", "boot"),
    "home/lamp": ("lamp", "lantern"),
    "home/革": ("革の手袋", "財布"),
}
COLORS = ("red", "blue")


def write_shop(directory: Path, *, extra: list[dict[str, Any]] | None = None) -> Path:
    """A small shop whose categories and colors stand in its titles."""
    directory.mkdir()
    taxonomy = {
        "name": "shop",
        "version": "1",
        "categories": [
            {"id": "wear", "name": "Wear", "parent": None},
            {"id": "home", "name": "Home", "parent": None},
            *({"id": leaf, "name": leaf, "parent": leaf.split("/")[0]} for leaf in LEAVES),
        ],
        "attributes": [
            {"name": "Color", "values": list(COLORS)},
            {"name": "Size", "values": ["S"]},
        ],
        "relevant": {leaf: {"Color": list(COLORS)} for leaf in LEAVES},
    }
    (directory / "taxonomy.json.gz").write_bytes(gzip.compress(json.dumps(taxonomy).encode()))
    random = np.random.default_rng(0)
    for split, count in (("train", 160), ("valid", 60), ("test", 40)):
        lines = []
        for number in range(count):
            leaf = list(LEAVES)[random.integers(len(LEAVES))]
            color = COLORS[random.integers(2)]
            lines.append(
                {
                    "product_id": f"{split}-{number}",
                    "locale": "ja" if "革" in leaf else "en",
                    "title": f"{LEAVES[leaf][random.integers(2)]} {color} {random.integers(99)}",
                    "description": "nice " * int(random.integers(9)),
                    "bullets": [],
                    "image": None,
                    "category": leaf,
                    "attributes": [{"name": "Color", "value": color}],
                }
            )
        if split == "train":
            lines += extra or []
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return directory
