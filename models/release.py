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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from torch import Tensor, nn

from models.errors import ModelError, ReleaseError
from models.labels import LabelSpace
from models.manifest import MANIFEST, FileEntry, Manifest, check_files, read_checked
from models.release_documents import (
    CATEGORIES,
    EXAMPLES,
    LABELS,
    TAXONOMY,
    THRESHOLDS,
    WEIGHTS,
    Example,
    Thresholds,
    read_examples,
    read_space,
    read_taxonomy,
    read_thresholds,
)
from models.taxonomy import Taxonomy
from models.undrawn import Undrawn

__all__ = ["Release", "read_release"]

Net = TypeVar("Net", bound=nn.Module)


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
        return self.files[TAXONOMY].sha256

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
        if WEIGHTS not in self.files:
            return {}
        try:
            return safetensors.torch.load(self.read(WEIGHTS))
        except safetensors.SafetensorError as error:
            raise ReleaseError(
                f"release {self.directory}: {WEIGHTS} is not safetensors: {error}"
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

    def space(
        name: str, expected: tuple[int, str] | None, known: Sequence[str]
    ) -> LabelSpace | None:
        if expected is not None:
            return read_space(read(name), expected, known, f"{where}, {name}")
        if name in manifest.files:
            raise ReleaseError(f"{where}: {name} is there, {MANIFEST} names no such label space")
        return None

    taxonomy = read_taxonomy(read(TAXONOMY), manifest, where)
    categories = space(CATEGORIES, manifest.categories, tuple(taxonomy.categories))
    labels = space(LABELS, manifest.labels, taxonomy.label_ids())
    if categories is None and labels is None:
        raise ReleaseError(f"{where}: neither a category nor an attribute model")
    of_categories, of_labels = read_thresholds(
        read(THRESHOLDS), categories, labels, f"{where}, {THRESHOLDS}"
    )
    examples = read_examples(read(EXAMPLES), taxonomy, categories, labels, f"{where}, {EXAMPLES}")
    return Release(
        directory=directory,
        name=manifest.name,
        version=manifest.version,
        created=manifest.created,
        architecture=manifest.architecture,
        config=manifest.config,
        taxonomy=taxonomy,
        categories=categories,
        labels=labels,
        category_thresholds=of_categories,
        label_thresholds=of_labels,
        examples=examples,
        metrics=manifest.metrics,
        files=manifest.files,
        manifest_sha256=sha256(manifest_bytes).hexdigest(),
    )
