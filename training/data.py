"""Labelled products from JSONL and Parquet files, streamed.

A data set is a folder with ``train``, ``valid`` and ``test`` as ``.jsonl``, ``.jsonl.gz`` or
``.parquet`` and ``taxonomy.json`` or ``taxonomy.json.gz``. A line (a row, with the same fields as
columns) is a product as the worker takes it, with its true ``category`` (an id of the taxonomy)
and its true ``attributes`` ([{name, value}]).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ProductError, SortimentError
from models.labelled import LabelledProduct, parse_labelled
from models.taxonomy import Taxonomy, load_taxonomy

__all__ = ["DataError", "DataSet", "LabelledProduct", "count_rows", "read_products"]

# A file with another format has as many bad lines as lines: these are enough to see why.
_SHOWN_PROBLEMS = 20
# Rows of a Parquet file that are Python objects at a time, however large its row groups are.
_PARQUET_ROWS = 1024
_PARQUET_BUFFER = 2**20
# Of a table no other column is read: it may hold what is no Python object.
_COLUMNS = (
    *("product_id", "version", "locale", "title", "description", "bullets", "images", "image"),
    *("claimed_category", "category", "attributes"),
)
_PRODUCTS = ("jsonl", "jsonl.gz", "parquet")


class DataError(SortimentError):
    """A data set that is missing, unreadable or holds lines that are no labelled products."""


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
        return load_taxonomy(self.taxonomy_file)

    @property
    def taxonomy_file(self) -> Path:
        """Where the taxonomy is."""
        return self._file("taxonomy", ("json", "json.gz"))

    def file(self, split: str) -> Path:
        """Where the products of a split are.

        Raises:
            DataError: there is no such split, or more than one file of it.
        """
        return self._file(split, _PRODUCTS)

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return any((self.directory / f"{split}.{kind}").exists() for kind in _PRODUCTS)

    def products(self, split: str) -> Iterator[LabelledProduct]:
        """The products of a split, as ``read_products`` gives them.

        Raises:
            DataError: there is no such split (at once), or it has bad lines (at its end).
        """
        return read_products(self.file(split))

    def listed(self, split: str, limit: int | None = None) -> list[LabelledProduct]:
        """The first so many products of a split (None: all), to measure on.

        Raises:
            DataError: as ``products``; or there are none.
        """
        items = list(islice(self.products(split), limit))
        if not items:
            raise DataError(f"{self.directory} has no products in {split}: nothing to measure")
        return items

    def count(self, split: str) -> int:
        """How many lines that are not empty (rows) a split has.

        Raises:
            DataError: it is not there or cannot be read.
        """
        return count_rows(self.file(split))

    def _file(self, stem: str, suffixes: tuple[str, ...]) -> Path:
        names = [f"{stem}.{suffix}" for suffix in suffixes]
        found = [path for path in map(self.directory.joinpath, names) if path.is_file()]
        if len(found) != 1:
            have = ", ".join(path.name for path in found) or "none of them"
            raise DataError(f"{self.directory} needs one of {', '.join(names)}; it has {have}")
        return found[0]


def count_rows(path: Path) -> int:
    """How many lines that are not empty (rows) a file has.

    Raises:
        DataError: it cannot be read.
    """
    with _readable(path):
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with _opened(path) as file:
            return sum(1 for line in file if line.strip())


def read_products(path: Path) -> Iterator[LabelledProduct]:
    """Labelled products of a file, one by one; empty lines are passed.

    Raises:
        DataError: the file cannot be read; or, after its last line, naming how many lines were
            bad and the first 20 of them: no line is left out silently.
    """
    problems: list[str] = []
    num_bad = 0
    is_table = path.suffix == ".parquet"
    with _readable(path):
        for number, decode in _rows(path) if is_table else _lines(path):
            try:
                yield parse_labelled(decode())
            except (ProductError, ValueError) as error:
                num_bad += 1
                if num_bad <= _SHOWN_PROBLEMS:
                    place = "row" if is_table else "line"
                    problems.append(f"  {path}, {place} {number}: {error}")
    if num_bad:
        more = f"\n  and {num_bad - len(problems)} more" if num_bad > len(problems) else ""
        raise DataError(
            f"{path}: {num_bad} lines are no labelled products; correct or remove them\n"
            + "\n".join(problems)
            + more
        )


def _lines(path: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Numbers from 1 with what decodes the line, or raises ValueError."""
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, partial(orjson.loads, line)


def _rows(path: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Likewise of a table."""
    number = 0
    # Else a row group is read whole, and some writers make one of a whole file.
    with pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER, pre_buffer=False) as file:
        columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
        for batch in file.iter_batches(_PARQUET_ROWS, columns=columns):
            decode = _decoder(batch)
            for row in range(len(batch)):
                number += 1
                yield number, partial(decode, row)


def _decoder(batch: pa.RecordBatch) -> Callable[[int], Any]:
    try:
        rows: list[Any] = batch.to_pylist()
    except ValueError:
        # A text that is not UTF-8: row by row, to name it.
        return lambda row: batch.slice(row, 1).to_pylist()[0]
    return rows.__getitem__


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _opened(path: Path) -> BufferedIOBase | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
