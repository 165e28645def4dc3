"""Writes the sample catalog in the project's data format: three splits and the taxonomy."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random

import orjson

from demo.catalog.grammar import load_grammar
from demo.catalog.products import ProductMaker
from models.taxonomies.native import write_native

__all__ = ["SEED", "SPLITS", "write_catalog"]

SEED = 20
SPLITS = {"train": 2_600, "valid": 400, "test": 1_000}


def write_catalog(directory: Path, seed: int = SEED) -> Path:
    """Write ``{train,valid,test}.jsonl.gz`` and ``taxonomy.json.gz``, made if they are missing.

    The same seed gives the same bytes. No two products have the same texts, so none of the test
    split was seen in training.

    Returns: ``directory``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    grammar = load_grammar()
    maker = ProductMaker(grammar, Random(seed))
    write_native(grammar.taxonomy, directory / "taxonomy.json.gz")
    seen: set[tuple[str, str]] = set()
    number = 0
    for split, count in SPLITS.items():
        lines: list[bytes] = []
        while len(lines) < count:
            product = maker.make(f"sample-{number:05d}")
            texts = (product["title"], product["description"])
            if texts not in seen:
                seen.add(texts)
                number += 1
                lines.append(orjson.dumps(product) + b"\n")
        # mtime=0: gzip would write the time of day into its header.
        data = gzip.compress(b"".join(lines), mtime=0)
        partial = directory / f".{split}.partial"
        partial.write_bytes(data)
        partial.replace(directory / f"{split}.jsonl.gz")
    return directory
