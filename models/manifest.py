"""A release's manifest: what files a release has, and whether they are those files.

Nothing outside the directory is ever opened: paths are checked before they are used, and symbolic
links are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from models.errors import ReleaseError

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "FileEntry",
    "Manifest",
    "check_files",
    "read_checked",
    "sha256_of",
]

MANIFEST = "manifest.json"
SCHEMA = "sortiment.release.v1"
# A manifest names files and settings; one that is larger is something else.
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_MAX_PATH_CHARS = 512
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path below the release, with ``/``, its size and its SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``manifest.json``, checked for form.

    Attributes:
        categories, labels: (count, hash) of a label space, None where the release has no such
            model.
    """

    name: str
    version: str
    created: str
    architecture: str
    config: Mapping[str, Any]
    taxonomy_name: str
    taxonomy_version: str
    categories: tuple[int, str] | None
    labels: tuple[int, str] | None
    metrics: Mapping[str, Any]
    files: Mapping[str, FileEntry]

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("version", self.version)):
            if not _NAME.fullmatch(value):
                raise ReleaseError(
                    f"a release's {field} has 1 to 128 of the characters A-Z a-z 0-9 . _ - and "
                    f"starts with a letter or a digit, got {value[:200]!r}"
                )

    def to_json(self) -> bytes:
        """``manifest.json``; ``parse`` reads it."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "architecture": self.architecture,
            "config": self.config,
            "taxonomy": {"name": self.taxonomy_name, "version": self.taxonomy_version},
            "categories": _space_json(self.categories),
            "labels": _space_json(self.labels),
            "metrics": self.metrics,
            "files": [
                {"path": entry.path, "bytes": entry.size_bytes, "sha256": entry.sha256}
                for entry in self.files.values()
            ],
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """Read a manifest's bytes; ``where`` names it in messages.

        Raises:
            ReleaseError: not JSON, of another format version, a field missing or of a wrong type,
                or a file path that leads out of the release.
        """
        if len(data) > _MAX_MANIFEST_BYTES:
            raise ReleaseError(f"{where}: {len(data)} bytes are no manifest")
        try:
            raw = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise ReleaseError(f"{where} is not JSON: {error}; fetch the release anew") from error
        if not isinstance(raw, dict):
            raise ReleaseError(f"{where} must be a JSON object, got {type(raw).__name__}")
        if raw.get("schema") != SCHEMA:
            raise ReleaseError(
                f"{where}: format {raw.get('schema')!r} is unknown here, this version reads "
                f"{SCHEMA!r}; update the project or make the release anew"
            )
        fields = _Fields(raw, where)
        taxonomy = _Fields(fields.take("taxonomy", dict), f"{where}, taxonomy")
        try:
            return cls(
                name=fields.take("name", str),
                version=fields.take("version", str),
                created=fields.take("created", str),
                architecture=fields.take("architecture", str),
                config=fields.take("config", dict),
                taxonomy_name=taxonomy.take("name", str),
                taxonomy_version=taxonomy.take("version", str),
                categories=fields.space("categories"),
                labels=fields.space("labels"),
                metrics=fields.take("metrics", dict),
                files=fields.files(),
            )
        except ReleaseError as error:
            message = str(error)
            raise ReleaseError(message if where in message else f"{where}: {message}") from error


def _space_json(space: tuple[int, str] | None) -> dict[str, Any] | None:
    return None if space is None else {"count": space[0], "hash": space[1]}


class _Fields:
    """A JSON object's fields, by type; what is amiss is named with its place."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where

    def take(self, name: str, kind: type) -> Any:
        if name not in self._raw:
            raise ReleaseError(f"{self._where}: {name} is missing")
        value = self._raw[name]
        if type(value) is not kind:
            raise ReleaseError(
                f"{self._where}: {name} must be of type {kind.__name__}, got {type(value).__name__}"
            )
        return value

    def space(self, name: str) -> tuple[int, str] | None:
        if name in self._raw and self._raw[name] is None:
            return None
        space = _Fields(self.take(name, dict), f"{self._where}, {name}")
        return space.take("count", int), space.take("hash", str)

    def files(self) -> dict[str, FileEntry]:
        entries: dict[str, FileEntry] = {}
        for number, raw in enumerate(self.take("files", list)):
            where = f"{self._where}, files[{number}]"
            if type(raw) is not dict:
                raise ReleaseError(f"{where} must be an object, got {type(raw).__name__}")
            fields = _Fields(raw, where)
            entry = FileEntry(
                safe_path(fields.take("path", str), where),
                fields.take("bytes", int),
                fields.take("sha256", str),
            )
            if entry.path in entries:
                raise ReleaseError(f"{where}: {entry.path!r} is there twice")
            if entry.size_bytes < 0 or not _SHA256.fullmatch(entry.sha256):
                raise ReleaseError(f"{where}: bytes or sha256 of {entry.path!r} cannot be right")
            entries[entry.path] = entry
        return entries


def safe_path(path: str, where: str) -> str:
    """``path`` if it names a file below the release on every system.

    Raises:
        ReleaseError: absolute, leading upwards, with a backslash, colon or control character, or
            the manifest itself.
    """
    parts = path.split("/")
    if (
        not path
        or len(path) > _MAX_PATH_CHARS
        or any(part in ("", ".", "..") for part in parts)
        or any(character in "\\:" or not character.isprintable() for character in path)
        or path == MANIFEST
    ):
        raise ReleaseError(f"{where}: {path[:200]!r} is not a path inside a release")
    return path


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare a directory with its manifest: every file, and no other.

    Raises:
        ReleaseError: a file is missing, extra, a link, or of another size or digest.
    """
    found = set(_files_below(directory))
    listed = {*manifest.files, MANIFEST}
    for path in sorted(listed - found):
        raise ReleaseError(f"release {directory}: {path} is missing; fetch the release anew")
    for path in sorted(found - listed):
        raise ReleaseError(
            f"release {directory}: {path!r} is not in {MANIFEST}; remove it or fetch anew"
        )
    for entry in manifest.files.values():
        file = directory / PurePosixPath(entry.path)
        size = file.stat().st_size
        if size != entry.size_bytes:
            raise ReleaseError(
                f"release {directory}: {entry.path} has {size} bytes, {MANIFEST} says "
                f"{entry.size_bytes}; fetch the release anew"
            )
        _compare(directory, entry, sha256_of(file))


def read_checked(directory: Path, entry: FileEntry) -> bytes:
    """A file's bytes, compared with its digest as they were read.

    Raises:
        ReleaseError: they cannot be read or are others.
    """
    try:
        data = (directory / PurePosixPath(entry.path)).read_bytes()
    except OSError as error:
        raise ReleaseError(f"release {directory}: {entry.path} cannot be read: {error}") from error
    _compare(directory, entry, hashlib.sha256(data).hexdigest())
    return data


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(directory: Path, entry: FileEntry, sha256: str) -> None:
    if sha256 != entry.sha256:
        raise ReleaseError(
            f"release {directory}: {entry.path} has SHA-256 {sha256}, {MANIFEST} says "
            f"{entry.sha256}: it was altered; fetch the release anew"
        )


def _files_below(directory: Path) -> list[str]:
    """Paths of the files below a directory."""
    paths: list[str] = []
    pending = [(directory, "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_symlink():
                    raise ReleaseError(
                        f"release {directory}: {path!r} is a symbolic link; a release holds files"
                    )
                if entry.is_dir():
                    pending.append((Path(entry.path), f"{path}/"))
                elif entry.is_file():
                    paths.append(path)
                else:
                    raise ReleaseError(f"release {directory}: {path!r} is no regular file")
    return paths
