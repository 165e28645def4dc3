"""Products from JSONL files as input events: labels stripped, claims added where wanted."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import orjson

from worker.errors import SortimentError

__all__ = ["Claim", "ProductEvent", "ProductFileError", "read_events"]

Claim = Literal["none", "true", "noisy"]

# What the data sets know and a seller's upload does not hold.
_LABEL_FIELDS = ("category", "attributes")


class ProductFileError(SortimentError):
    """A file of products that cannot be read, or a line of it; says which."""


class ProductEvent(NamedTuple):
    """A key and a value for the input topic. Without a key, partitions take turns."""

    key: bytes | None
    value: bytes


def read_events(
    paths: Iterable[Path], claim: Claim = "none", *, keyed: bool = True
) -> Iterator[ProductEvent]:
    """The products of ``.jsonl`` and ``.jsonl.gz`` files, a line each, in order; read as needed.

    Everything but the labels is passed on as it is: whether it is a product, the worker decides.
    Empty lines are skipped.

    Args:
        claim: ``true`` sends the line's category as ``claimed_category``, as an honest seller
            would; ``noisy`` does so for every other line, and for every tenth of these with the
            category of the line before; ``none`` sends the line's own ``claimed_category``, if any.
        keyed: whether the product id becomes the event's key.

    Raises:
        ProductFileError: names the file, and the line where there is one.
    """
    for path in paths:
        yield from _read_file(path, claim, keyed)


def _read_file(path: Path, claim: Claim, keyed: bool) -> Iterator[ProductEvent]:
    number = 0
    category: object = None
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                product = _decode(path, number, line)
                before, category = category, product.get("category")
                for field in _LABEL_FIELDS:
                    product.pop(field, None)
                claimed = _claimed(claim, number, category, before)
                if claimed is not None:
                    product["claimed_category"] = claimed
                key = str(product["product_id"]).encode()
                yield ProductEvent(key if keyed else None, _encode(path, number, product))
    except (OSError, EOFError, zlib.error) as error:
        at = f"{path}:{number + 1}" if number else str(path)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ProductFileError(f"{at}: cannot be read: {why}") from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decode(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        product = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ProductFileError(f"{path}:{number}: not JSON: {error}") from error
    if not isinstance(product, dict):
        kind = type(product).__name__
        raise ProductFileError(f"{path}:{number}: a product is a JSON object, got {kind}")
    product_id = product.get("product_id")
    if not isinstance(product_id, str | int) or isinstance(product_id, bool) or product_id == "":
        raise ProductFileError(
            f"{path}:{number}: product_id must be text or an integer, it becomes the event's key"
        )
    return product


def _encode(path: Path, number: int, product: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(product)
    except orjson.JSONEncodeError as error:
        # What is read to a depth of 1,024 is written to one of 254 only.
        raise ProductFileError(f"{path}:{number}: cannot be written again: {error}") from error


def _claimed(claim: Claim, number: int, category: object, before: object) -> object:
    if claim == "true":
        return category
    if claim == "noisy" and number % 2 == 0:
        return before if number % 20 == 0 else category
    return None
