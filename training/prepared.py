"""Prepared products on disk: what is larger than memory is read where it lies.

A split goes once through the preparer, a chunk at a time, and each chunk is appended to plain
files, which are mapped into memory afterwards. What stays in memory is 8 bytes a product and
array (where its row begins). An entry's name is a hash of all that decides its content (the
data's files, the preparer, this code), so it is never stale; it appears whole or not at all.

Legend: N products.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import models.prepare
from models.labels import LabelSpace
from models.prepare import Prepared, Preparer, Ragged
from models.product import Product, parse_product
from models.taxonomy import Taxonomy
from training.changes import Changes
from training.data import DataSet, LabelledProduct
from training.targets import Labeller, Oddities, Targets
from training.whole_files import writing

__all__ = ["SplitOnDisk", "chosen_rows", "prepare_split", "sampled"]

# Products that are Python objects at a time: some tens of MB.
_CHUNK_ROWS = 4096
# Enough to catch a wrong tokenizer, a wrong row order or a broken kernel within a second.
_EXAMPLES = 8
_META = "meta.json"


@dataclass(frozen=True, slots=True)
class SplitOnDisk:
    """A split as arrays, mapped from disk.

    Attributes:
        digest: names the content, in hex.
        examples: up to 8 of its products, for a release's self-check. example_categories: their
            true ones.
        odd: what could not be learned from.
    """

    prepared: Prepared
    targets: Targets
    digest: str
    examples: tuple[Product, ...]
    example_categories: tuple[str, ...]
    odd: Oddities

    def __len__(self) -> int:
        return len(self.prepared)


def chosen_rows(num_rows: int, limit: int | None, seed: int) -> NDArray[np.int64] | None:
    """Which rows make a random sample of at most ``limit``, rising; None: all."""
    if limit is None or limit >= num_rows:
        return None
    return np.sort(np.random.default_rng([seed, 0]).permutation(num_rows)[:limit])


def prepare_split(
    data: DataSet,
    split: str,
    *,
    limit: int | None,
    seed: int,
    preparer: Preparer,
    preparer_key: str,
    taxonomy: Taxonomy,
    categories: LabelSpace,
    labels: LabelSpace,
    cache_dir: Path,
    changes: Changes | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> SplitOnDisk:
    """A split's arrays and targets, from disk where they were made before.

    Args:
        limit: products at most, chosen at random by ``seed``.
        preparer_key: names all that decides what the preparer answers.
        cache_dir: folder of all entries; made where it is missing.
        changes: what is done to the products first.
        advance: called with the number of products newly ready.

    Raises:
        DataError: the split cannot be read. SortimentError: nothing in it can be learned from.
    """
    parts = {
        "files": [file_digest(path) for path in (data.file(split), data.taxonomy_file)],
        "sample": None if limit is None else [limit, seed],
        "preparer": preparer_key,
        "spaces": [categories.hash, labels.hash],
        "code": _code_digest(),
        "changes": None if changes is None else changes.key(split),
    }
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    entry = cache_dir / "prepared" / digest[:32]
    labeller = Labeller(taxonomy, categories, labels)
    if not entry.is_dir():
        entry.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: other machines may share the cache, and other containers the pid.
        with tempfile.TemporaryDirectory(prefix=f".{entry.name}-", dir=entry.parent) as beside:
            partial = Path(beside) / "entry"
            partial.mkdir()
            rows = chosen_rows(count := data.count(split), limit, seed)
            total = count if rows is None else len(rows)
            products = _only(data.products(split), rows)
            if changes is not None:
                products = changes.of(split, products)
            with writing(entry):
                _write(partial, products, total, labeller, preparer, advance)
                _put_in_place(partial, entry)
    return _read(entry, digest, labeller)


def _put_in_place(partial: Path, entry: Path) -> None:
    try:
        partial.rename(entry)
    except OSError:
        # Another process was faster with the same content.
        if not entry.is_dir():
            raise


def sampled(data: DataSet, split: str, limit: int | None, seed: int) -> Iterator[LabelledProduct]:
    """The products of a split that ``prepare_split`` takes, in their order."""
    rows = None if limit is None else chosen_rows(data.count(split), limit, seed)
    return _only(data.products(split), rows)


def _only(
    products: Iterator[LabelledProduct], rows: NDArray[np.int64] | None
) -> Iterator[LabelledProduct]:
    if rows is None:
        yield from products
        return
    wanted = iter(rows.tolist())
    following = next(wanted, None)
    # Read to its end all the same: bad lines are told of after the last one.
    for place, product in enumerate(products):
        if place == following:
            yield product
            following = next(wanted, None)


def _write(
    folder: Path,
    products: Iterator[LabelledProduct],
    total: int,
    labeller: Labeller,
    preparer: Preparer,
    advance: Callable[[int], object],
) -> None:
    example_places = set(np.linspace(0, total - 1, min(_EXAMPLES, total)).astype(int).tolist())
    examples: list[LabelledProduct] = []
    place = 0
    with ExitStack() as stack:
        columns = _Columns(folder, stack)
        for chunk in _chunks(products):
            for item in chunk:
                if place in example_places:
                    examples.append(item)
                place += 1
            kept, targets = labeller.targets(chunk)
            prepared = preparer.prepare([chunk[row].product for row in kept])
            columns.put("costs", prepared.costs)
            columns.put("leaves", targets.leaves)
            columns.put("mask_rows", targets.mask_rows)
            columns.put_ragged("positives", targets.positives)
            columns.put("texts", targets.texts)
            for name, ragged in prepared.arrays.items():
                columns.put_ragged(f"array.{name}", ragged)
            advance(len(chunk))
    labeller.check()
    meta = {
        "columns": columns.columns,
        "odd": asdict(labeller.odd),
        "examples": [asdict(item.product) for item in examples],
        "example_categories": [item.category for item in examples],
    }
    (folder / _META).write_text(json.dumps(meta), encoding="utf-8")


def _chunks(products: Iterator[LabelledProduct]) -> Iterator[list[LabelledProduct]]:
    chunk: list[LabelledProduct] = []
    for product in products:
        chunk.append(product)
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Columns:
    """Arrays that grow by appending to a file each.

    Attributes:
        columns: dtype and shape of each by name.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._files: dict[str, BinaryIO] = {}
        self.columns: dict[str, dict[str, Any]] = {}
        self._ends: dict[str, int] = {}

    def put(self, name: str, rows: NDArray[Any]) -> None:
        """Append rows [n, ...]."""
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self._folder / name).open("wb"))
            self.columns[name] = {"dtype": rows.dtype.str, "shape": [0, *rows.shape[1:]]}
        self._files[name].write(np.ascontiguousarray(rows).data)
        self.columns[name]["shape"][0] += len(rows)

    def put_ragged(self, name: str, ragged: Ragged) -> None:
        """Append rows of different lengths, as values and where each row begins."""
        end = self._ends.get(name)
        if end is None:
            end = 0
            self.put(f"{name}.indptr", np.zeros(1, dtype=np.int64))
        self.put(f"{name}.values", ragged.values)
        self.put(f"{name}.indptr", ragged.indptr[1:] + end)
        self._ends[name] = end + int(ragged.indptr[-1])


def _read(entry: Path, digest: str, labeller: Labeller) -> SplitOnDisk:
    meta = json.loads((entry / _META).read_text("utf-8"))
    columns = {name: _mapped(entry / name, column) for name, column in meta["columns"].items()}

    def ragged(name: str) -> Ragged:
        if f"{name}.indptr" not in columns:
            return Ragged(np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
        return Ragged(columns[f"{name}.values"], columns[f"{name}.indptr"])

    def rows(name: str, dtype: type) -> NDArray[Any]:
        return columns[name] if name in columns else np.empty(0, dtype=dtype)

    prefix, suffix = "array.", ".indptr"
    names = [name for name in columns if name.startswith(prefix) and name.endswith(suffix)]
    arrays = {name[len(prefix) : -len(suffix)]: ragged(name[: -len(suffix)]) for name in names}
    return SplitOnDisk(
        Prepared(arrays, rows("costs", np.int32)),
        Targets(
            rows("leaves", np.int64),
            rows("mask_rows", np.int64),
            ragged("positives"),
            rows("texts", np.int64),
            labeller.masks,
        ),
        digest,
        tuple(parse_product(raw) for raw in meta["examples"]),
        tuple(meta["example_categories"]),
        Oddities(**meta["odd"]),
    )


def _mapped(path: Path, column: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = np.dtype(column["dtype"]), tuple(column["shape"])
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    # As a plain array: what is taken from it is in memory and no longer a map. Mode "c" never
    # writes to the file; torch warns of arrays that cannot be written to.
    return np.memmap(path, dtype=dtype, mode="c", shape=shape).view(np.ndarray)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _code_digest() -> str:
    """Of the code that prepares: an entry of another version is not taken."""
    digest = hashlib.sha256()
    folders: Sequence[Path] = (Path(models.prepare.__file__).parent, Path(__file__).parent)
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
