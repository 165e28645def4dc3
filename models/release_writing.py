"""Writing a release: all of it or nothing, and read back verified."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import safetensors.torch
from torch import Tensor

from models.errors import ReleaseError
from models.labels import LabelSpace
from models.manifest import MANIFEST, FileEntry, Manifest, safe_path, sha256_of
from models.release import Release, read_release
from models.release_documents import (
    CATEGORIES,
    EXAMPLES,
    LABELS,
    OWN_FILES,
    TAXONOMY,
    THRESHOLDS,
    WEIGHTS,
    Example,
    Thresholds,
    dump_examples,
    dump_thresholds,
)
from models.release_store import write_directory
from models.taxonomy import Taxonomy

__all__ = ["write_release"]


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
    weights: Mapping[str, Tensor] | Path,
    files: Mapping[str, Path | bytes],
    examples: Sequence[Example],
    metrics: Mapping[str, Any],
) -> Release:
    """Write a release, all of it or nothing, and read it back verified.

    Args:
        directory: not there yet, or empty.
        config, metrics: what JSON can hold.
        weights: by name, or another release's file of them; none where there are none.
        files: the architecture's own, by path below the release.

    Raises:
        ReleaseError: the directory is not empty, or what was given would not be read back.
    """
    contents: dict[str, bytes | Path] = {}
    for path, content in files.items():
        if safe_path(path, f"release {directory}") in OWN_FILES:
            raise ReleaseError(f"release {directory}: {path} is the format's own file")
        contents[path] = content
    if isinstance(weights, Path):
        contents[WEIGHTS] = weights
    elif weights:
        contents[WEIGHTS] = safetensors.torch.save(
            {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
        )
    # mtime=0: the same release has the same digests.
    contents[TAXONOMY] = gzip.compress(taxonomy.to_json(), mtime=0)
    for file_name, space in ((CATEGORIES, categories), (LABELS, labels)):
        if space is not None:
            contents[file_name] = orjson.dumps(space.ids, option=orjson.OPT_INDENT_2)
    contents[THRESHOLDS] = dump_thresholds(
        category_thresholds, label_thresholds, f"release {directory}"
    )
    contents[EXAMPLES] = dump_examples(examples)
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
