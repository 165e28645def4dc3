"""Labelled products from JSONL files, streamed.

A data set is a folder with ``train``, ``valid`` and ``test`` as ``.jsonl`` or ``.jsonl.gz`` and
``taxonomy.json`` or ``taxonomy.json.gz``. A line is a product as the worker takes it, with its
true ``category`` (an id of the taxonomy) and its true ``attributes`` ([{name, value}]).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import orjson

from models.errors import ProductError, SortimentError
from models.product import Product, parse_product
from models.taxonomy import Taxonomy, label_id, load_taxonomy

__all__ = ["DataError", "DataSet", "LabelledProduct", "read_products"]

# A file with another format has as many bad lines as lines: these are enough to see why.
_SHOWN_PROBLEMS = 20


class DataError(SortimentError):
    """A data set that is missing, unreadable or holds lines that are no labelled products."""


@dataclass(frozen=True, slots=True)
class LabelledProduct:
    """A product and what is known to be true of it.

    Attributes:
        category: its category's id.
        attributes: (attribute, value) pairs, each once, in file order.
    """

    product: Product
    category: str
    attributes: tuple[tuple[str, str], ...]

    @property
    def label_ids(self) -> frozenset[str]:
        """The attributes as label ids; the taxonomy may lack some."""
        return frozenset(label_id(name, value) for name, value in self.attributes)


class DataSet:
    """A folder with a data set.

    Raises:
        DataError: the folder is not there.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise DataError(f"no data set at {directory}: it is not a folder")
        self.directory = directory

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the data set.

        Raises:
            DataError: there is none. TaxonomyError: it has problems.
        """
        return load_taxonomy(self._file("taxonomy", "json"))

    def products(self, split: str) -> Iterator[LabelledProduct]:
        """The products of a split, as ``read_products`` gives them.

        Raises:
            DataError: there is no such split (at once), or it has bad lines (at its end).
        """
        return read_products(self._file(split, "jsonl"))

    def _file(self, stem: str, suffix: str) -> Path:
        names = (f"{stem}.{suffix}", f"{stem}.{suffix}.gz")
        found = [path for path in map(self.directory.joinpath, names) if path.is_file()]
        if len(found) != 1:
            have = "both" if found else "neither"
            raise DataError(f"{self.directory} needs {names[0]} or {names[1]}, it has {have}")
        return found[0]


def read_products(path: Path) -> Iterator[LabelledProduct]:
    """Labelled products of a ``.jsonl`` or ``.jsonl.gz`` file, one by one; empty lines are passed.

    Raises:
        DataError: the file cannot be read; or, after its last line, naming how many lines were
            bad and the first 20 of them: no line is left out silently.
    """
    problems: list[str] = []
    num_bad = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield _parse(orjson.loads(line))
                except (ProductError, ValueError) as error:
                    num_bad += 1
                    if num_bad <= _SHOWN_PROBLEMS:
                        problems.append(f"  {path}, line {number}: {error}")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if num_bad:
        more = f"\n  and {num_bad - len(problems)} more" if num_bad > len(problems) else ""
        raise DataError(
            f"{path}: {num_bad} lines are no labelled products; correct or remove them\n"
            + "\n".join(problems)
            + more
        )


def _opened(path: Path) -> BufferedIOBase | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parse(raw: object) -> LabelledProduct:
    product = parse_product(raw)
    if not isinstance(raw, dict):
        raise TypeError("parse_product takes nothing but objects")
    category = raw.get("category")
    if type(category) is not str or not category:
        raise ProductError("missing_field", "category must be a category's id, not empty")
    pairs = raw.get("attributes")
    if pairs is None:
        pairs = []
    if type(pairs) is not list:
        raise ProductError("wrong_type", "attributes must be a list of {name, value}")
    return LabelledProduct(product, category, tuple(dict.fromkeys(map(_attribute, pairs))))


def _attribute(raw: Any) -> tuple[str, str]:
    if type(raw) is dict:
        name, value = raw.get("name"), raw.get("value")
        if type(name) is str and type(value) is str:
            return name, value
    raise ProductError("wrong_type", f"an attribute is {{name, value}} of texts, got {raw!r:.80}")
