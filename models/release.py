"""The release directory: what training writes and the worker serves. Format version 1.

    manifest.json          name, version, architecture, settings, digests (models/manifest.py)
    weights.safetensors    where the architecture has weights
    taxonomy.json.gz       the project's own JSON
    categories.json        category ids in the order of a category model's rows, if there is one
    labels.json            label ids likewise of an attribute model's rows
    thresholds.json        {"categories": [...], "labels": [...]}
    examples.json          the self-check: products and what the model answered when it was made
    <anything else>        the architecture's own files: tokenizer.json, ...

A release is refused where anything is amiss. Nothing in it is ever executed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelError, ProductError, ReleaseError, TaxonomyError
from models.labels import LabelSpace
from models.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    check_files,
    read_checked,
    safe_path,
    sha256_of,
)
from models.product import Product, parse_product
from models.release_store import fetch_release, write_directory
from models.taxonomy import Taxonomy
from models.undrawn import Undrawn

__all__ = ["Example", "Release", "fetch_release", "read_release", "write_release"]

Net = TypeVar("Net", bound=nn.Module)

_WEIGHTS = "weights.safetensors"
_TAXONOMY = "taxonomy.json.gz"
_CATEGORIES = "categories.json"
_LABELS = "labels.json"
_THRESHOLDS = "thresholds.json"
_EXAMPLES = "examples.json"
_OWN_FILES = frozenset({_WEIGHTS, _TAXONOMY, _CATEGORIES, _LABELS, _THRESHOLDS, _EXAMPLES})

Thresholds = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Example:
    """A product and what the model answered to it when the release was made.

    Attributes:
        mask_category: whose relevant labels were scored; None where no labels were.
        categories: (category id, score), best first; empty without a category model.
        labels: (label id, score) at or above their thresholds; empty without an attribute model.
        tolerance: by how much a score may differ on another device or in another precision.
    """

    product: Product
    mask_category: str | None
    categories: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...]
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Release:
    """A verified release.

    Attributes:
        config: the architecture's own settings.
        categories, labels: label spaces; None where the release has no such model.
        category_thresholds: [leaves], float32, in [0, 1]; label_thresholds: [labels]; None where
            there is no such label space.
        manifest_sha256: names the release's content, in hex.
    """

    directory: Path
    name: str
    version: str
    created: str
    architecture: str
    config: Mapping[str, Any]
    taxonomy: Taxonomy
    categories: LabelSpace | None
    labels: LabelSpace | None
    category_thresholds: Thresholds | None
    label_thresholds: Thresholds | None
    examples: tuple[Example, ...]
    metrics: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    manifest_sha256: str

    @property
    def id(self) -> str:
        """``name/version``, as every output event has it."""
        return f"{self.name}/{self.version}"

    @property
    def taxonomy_sha256(self) -> str:
        """Of the taxonomy file, in hex: names the taxonomy's content."""
        return self.files[_TAXONOMY].sha256

    def read(self, path: str) -> bytes:
        """A file's bytes, verified as they are read.

        Raises:
            ReleaseError: the release has no such file, or it was altered since.
        """
        if path not in self.files:
            raise ReleaseError(f"release {self.directory}: there is no {path}")
        return read_checked(self.directory, self.files[path])

    def filled(self, make: Callable[[], Net]) -> Net:
        """A network with the release's weights, which it takes over as they are.

        Args:
            make: builds it; its first weights are not drawn.

        Raises:
            ModelError: they do not fit. ReleaseError: altered since, or not safetensors.
        """
        with Undrawn():
            net = make()
        try:
            net.load_state_dict(self.weights(), assign=True)
        except RuntimeError as error:
            raise ModelError(f"the weights of {self.id} do not fit its config: {error}") from error
        return net

    def weights(self) -> dict[str, Tensor]:
        """The weights by name, on the CPU; empty where the architecture has none.

        Raises:
            ReleaseError: altered since, or not safetensors.
        """
        if _WEIGHTS not in self.files:
            return {}
        try:
            return safetensors.torch.load(self.read(_WEIGHTS))
        except safetensors.SafetensorError as error:
            raise ReleaseError(
                f"release {self.directory}: {_WEIGHTS} is not safetensors: {error}"
            ) from error


def read_release(directory: Path) -> Release:
    """Read a release and verify all of it: digests, label spaces, taxonomy, thresholds.

    Raises:
        ReleaseError: anything amiss, naming what, where and what to do.
    """
    where = f"release {directory}"
    path = directory / MANIFEST
    try:
        manifest_bytes = path.read_bytes()
        manifest = Manifest.parse(manifest_bytes, str(path))
        check_files(directory, manifest)
    except OSError as error:
        raise ReleaseError(
            f"{where} cannot be read: {error}; give a release's directory"
        ) from error

    def read(name: str) -> bytes:
        if name not in manifest.files:
            raise ReleaseError(f"{where}: {MANIFEST} lists no {name}; make the release anew")
        return read_checked(directory, manifest.files[name])

    taxonomy = _read_taxonomy(read(_TAXONOMY), manifest, where)
    spaces: dict[str, LabelSpace | None] = {}
    for name, expected, known in (
        (_CATEGORIES, manifest.categories, tuple(taxonomy.categories)),
        (_LABELS, manifest.labels, taxonomy.label_ids()),
    ):
        if expected is None and name in manifest.files:
            raise ReleaseError(f"{where}: {name} is there, {MANIFEST} names no such label space")
        spaces[name] = (
            None
            if expected is None
            else _read_space(read(name), expected, known, f"{where}, {name}")
        )
    if spaces[_CATEGORIES] is None and spaces[_LABELS] is None:
        raise ReleaseError(f"{where}: neither a category nor an attribute model")
    thresholds = _json(read(_THRESHOLDS), dict, f"{where}, {_THRESHOLDS}")
    return Release(
        directory=directory,
        name=manifest.name,
        version=manifest.version,
        created=manifest.created,
        architecture=manifest.architecture,
        config=manifest.config,
        taxonomy=taxonomy,
        categories=spaces[_CATEGORIES],
        labels=spaces[_LABELS],
        category_thresholds=_thresholds(thresholds.get("categories"), spaces[_CATEGORIES], where),
        label_thresholds=_thresholds(thresholds.get("labels"), spaces[_LABELS], where),
        examples=_read_examples(read(_EXAMPLES), taxonomy, spaces, f"{where}, {_EXAMPLES}"),
        metrics=manifest.metrics,
        files=manifest.files,
        manifest_sha256=sha256(manifest_bytes).hexdigest(),
    )


def write_release(
    directory: Path,
    *,
    name: str,
    version: str,
    architecture: str,
    config: Mapping[str, Any],
    taxonomy: Taxonomy,
    categories: LabelSpace | None,
    labels: LabelSpace | None,
    category_thresholds: Thresholds | None,
    label_thresholds: Thresholds | None,
    weights: Mapping[str, Tensor],
    files: Mapping[str, Path | bytes],
    examples: Sequence[Example],
    metrics: Mapping[str, Any],
) -> Release:
    """Write a release, all of it or nothing, and read it back verified.

    Args:
        directory: not there yet, or empty.
        config, metrics: what JSON can hold.
        files: the architecture's own, by path below the release.

    Raises:
        ReleaseError: the directory is not empty, or what was given would not be read back.
    """
    contents: dict[str, bytes | Path] = {}
    for path, content in files.items():
        if safe_path(path, f"release {directory}") in _OWN_FILES:
            raise ReleaseError(f"release {directory}: {path} is the format's own file")
        contents[path] = content
    if weights:
        contents[_WEIGHTS] = safetensors.torch.save(
            {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
        )
    # mtime=0: the same release has the same digests.
    contents[_TAXONOMY] = gzip.compress(taxonomy.to_json(), mtime=0)
    for file_name, space in ((_CATEGORIES, categories), (_LABELS, labels)):
        if space is not None:
            contents[file_name] = orjson.dumps(space.ids, option=orjson.OPT_INDENT_2)
    contents[_THRESHOLDS] = _dump_thresholds(directory, category_thresholds, label_thresholds)
    contents[_EXAMPLES] = orjson.dumps(
        [asdict(example) for example in examples], option=orjson.OPT_INDENT_2
    )
    manifest = Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=architecture,
        config=config,
        taxonomy_name=taxonomy.name,
        taxonomy_version=taxonomy.version,
        categories=None if categories is None else (len(categories), categories.hash),
        labels=None if labels is None else (len(labels), labels.hash),
        metrics=metrics,
        files={path: _entry(path, contents[path]) for path in sorted(contents)},
    )
    write_directory(directory, {**contents, MANIFEST: manifest.to_json()})
    return read_release(directory)


def _entry(path: str, content: bytes | Path) -> FileEntry:
    if isinstance(content, bytes):
        return FileEntry(path, len(content), sha256(content).hexdigest())
    try:
        return FileEntry(path, content.stat().st_size, sha256_of(content))
    except OSError as error:
        raise ReleaseError(f"{content} cannot be read for the release: {error}") from error


def _dump_thresholds(
    directory: Path, categories: Thresholds | None, labels: Thresholds | None
) -> bytes:
    for thresholds in (categories, labels):
        # orjson writes NaN as null, so it must be caught before.
        if thresholds is not None and not np.isfinite(thresholds).all():
            raise ReleaseError(f"release {directory}: a threshold is not a number")
    document = {
        key: None if thresholds is None else thresholds.astype(np.float32)
        for key, thresholds in (("categories", categories), ("labels", labels))
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _json(data: bytes, kind: type, where: str) -> Any:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ReleaseError(f"{where} is not JSON: {error}; make the release anew") from error
    if type(document) is not kind:
        raise ReleaseError(f"{where} must hold a {kind.__name__}, got {type(document).__name__}")
    return document


def _read_taxonomy(data: bytes, manifest: Manifest, where: str) -> Taxonomy:
    try:
        taxonomy = Taxonomy.from_json(gzip.decompress(data), f"{where}, {_TAXONOMY}")
    except (OSError, EOFError, zlib.error) as error:
        raise ReleaseError(f"{where}: {_TAXONOMY} is not gzip: {error}") from error
    except TaxonomyError as error:
        raise ReleaseError(f"{where}: {error}") from error
    if (taxonomy.name, taxonomy.version) != (manifest.taxonomy_name, manifest.taxonomy_version):
        raise ReleaseError(
            f"{where}: {_TAXONOMY} is {taxonomy.name} version {taxonomy.version}, {MANIFEST} says "
            f"{manifest.taxonomy_name} version {manifest.taxonomy_version}; make the release anew"
        )
    return taxonomy


def _read_space(
    data: bytes, expected: tuple[int, str], known: Sequence[str], where: str
) -> LabelSpace:
    ids = _json(data, list, where)
    if not all(type(each) is str for each in ids):
        raise ReleaseError(f"{where} must hold strings")
    try:
        space = LabelSpace(tuple(ids))
    except ValueError as error:
        raise ReleaseError(f"{where}: {error}") from error
    if not ids or (len(space), space.hash) != expected:
        raise ReleaseError(
            f"{where}: {len(space)} ids of hash {space.hash}, {MANIFEST} says {expected[0]} of "
            f"{expected[1]}; make the release anew"
        )
    unknown = sorted(set(ids).difference(known))
    if unknown:
        raise ReleaseError(
            f"{where}: {len(unknown)} ids that the taxonomy lacks, first {unknown[0]!r}"
        )
    return space


def _thresholds(values: Any, space: LabelSpace | None, where: str) -> Thresholds | None:
    if (values is None) != (space is None):
        raise ReleaseError(f"{where}, {_THRESHOLDS}: thresholds and label spaces do not match")
    if values is None or space is None:
        return None
    if type(values) is not list or len(values) != len(space):
        raise ReleaseError(
            f"{where}, {_THRESHOLDS}: {len(space)} thresholds are needed, one for each row"
        )
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise ReleaseError(f"{where}, {_THRESHOLDS}: a threshold is a number from 0 to 1")
    return np.array(values, dtype=np.float32)


def _read_examples(
    data: bytes, taxonomy: Taxonomy, spaces: Mapping[str, LabelSpace | None], where: str
) -> tuple[Example, ...]:
    examples = []
    for number, raw in enumerate(_json(data, list, where)):
        try:
            mask_category = raw["mask_category"]
            example = Example(
                parse_product(raw["product"]),
                mask_category,
                _scored(raw["categories"], spaces[_CATEGORIES]),
                _scored(raw["labels"], spaces[_LABELS]),
                float(raw["tolerance"]),
            )
            if mask_category is not None:
                taxonomy.categories[mask_category]
            if not 0 < example.tolerance < 1:
                raise ValueError(f"tolerance {example.tolerance}")
        except (KeyError, TypeError, ValueError, ProductError) as error:
            raise ReleaseError(
                f"{where}, example {number} is not one: {error!r}; make the release anew"
            ) from error
        examples.append(example)
    if not examples:
        raise ReleaseError(f"{where}: no examples, so nothing to check the model by")
    return tuple(examples)


def _scored(raw: Any, space: LabelSpace | None) -> tuple[tuple[str, float], ...]:
    scored = tuple((identifier, float(score)) for identifier, score in raw)
    for identifier, score in scored:
        if space is None or identifier not in space.row_of or not 0 <= score <= 1:
            raise ValueError(f"{identifier!r} with score {score}")
    return scored
