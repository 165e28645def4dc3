"""Release directories as a whole: written at once or not at all, and moved to and from anywhere.

A directory appears under its final name only when all of it is on the disk; elsewhere, where
nothing can be renamed, the manifest comes last, and without it there is no release.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec

from models.addresses import without_password
from models.errors import ReleaseError
from models.manifest import MANIFEST, Manifest, check_files

__all__ = [
    "fetch_release",
    "move_directory",
    "refuse_if_there",
    "upload_release",
    "write_directory",
]

# Half-fetched releases; files that come in renew a folder's time. A fetch of a day has failed.
_FETCHING = re.compile(r"\.[0-9a-f]{32}\.\w+")
_ABANDONED_S = 86_400


def write_directory(directory: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write a directory of files, synced, in one step.

    Args:
        files: by path below the directory, with ``/``: the bytes, or a file to copy.

    Raises:
        ReleaseError: the directory is there and not empty, or cannot be written.
    """
    try:
        with _new_directory(directory) as temporary:
            for path, content in files.items():
                target = temporary / PurePosixPath(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    target.write_bytes(content)
                else:
                    shutil.copyfile(content, target)
                _sync(target)
    except OSError as error:
        raise ReleaseError(f"{directory} cannot be written: {error}") from error


def move_directory(written: Path, directory: Path) -> None:
    """Give a directory that ``write_directory`` wrote its final name, in one step.

    Args:
        written: on the same file system.

    Raises:
        ReleaseError: ``directory`` is there and not empty, or cannot be made.
    """
    refuse_if_there(directory)
    try:
        written.rename(directory)
        _sync(directory.parent)
    except OSError as error:
        raise ReleaseError(f"{directory} cannot be written: {error}") from error


def fetch_release(address: str, cache: Path) -> Path:
    """A local directory that holds the release at ``address``. ``read_release`` verifies it.

    A local path or ``file://`` address is used in place. Anything else that fsspec reaches is
    copied once into ``cache``, in a directory named by the SHA-256 of its manifest, so another
    release at the same address is another directory.

    Raises:
        ReleaseError: nothing there, not reachable, not a release or not whole.
    """
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme in ("", "file", "local"):
        local = Path(url2pathname(urlsplit(address).path) if scheme else address)
        if not local.is_dir():
            raise ReleaseError(f"no release at {address}: {local} is not a directory")
        return local
    where = without_password(address)
    try:
        filesystem, root = fsspec.core.url_to_fs(address)
        manifest_bytes = _read(filesystem, f"{root.rstrip('/')}/{MANIFEST}")
    # fsspec's back ends raise what their libraries raise: no base class is shared.
    except Exception as error:  # noqa: BLE001
        raise ReleaseError(f"no release at {where}: {_reason(error, address)}") from None
    manifest = Manifest.parse(manifest_bytes, f"{MANIFEST} at {where}")
    directory = cache / hashlib.sha256(manifest_bytes).hexdigest()[:32]
    if directory.is_dir():
        return directory
    _forget_abandoned(cache)
    try:
        with _new_directory(directory) as temporary:
            for path in manifest.files:
                target = temporary / PurePosixPath(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(f"{root.rstrip('/')}/{path}", str(target))
                _sync(target)
            (temporary / MANIFEST).write_bytes(manifest_bytes)
            _sync(temporary / MANIFEST)
            check_files(temporary, manifest)
    except ReleaseError:
        # Another process of this machine may have fetched it meanwhile.
        if directory.is_dir():
            return directory
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise ReleaseError(
            f"the release at {where} cannot be fetched: {_reason(error, address)}"
        ) from None
    return directory


def upload_release(directory: Path, address: str) -> str:
    """Copy a verified release to wherever fsspec writes, for ``fetch_release`` to read.

    What was interrupted is no release yet, and is completed by the same call.

    Args:
        directory: of a release that ``read_release`` has read.

    Returns:
        The address, without a password.

    Raises:
        ReleaseError: a release is there already, or not reachable, or not writable.
    """
    where = without_password(address)
    try:
        manifest_bytes = (directory / MANIFEST).read_bytes()
        filesystem, root = fsspec.core.url_to_fs(address)
        root = root.rstrip("/")
        is_there = _is_there(filesystem, f"{root}/{MANIFEST}")
        if not is_there:
            for path in Manifest.parse(manifest_bytes, MANIFEST).files:
                target = f"{root}/{path}"
                filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
                filesystem.put_file(str(directory / PurePosixPath(path)), target)
            filesystem.pipe_file(f"{root}/{MANIFEST}", manifest_bytes)
    except Exception as error:  # noqa: BLE001 - as in ``fetch_release``
        raise ReleaseError(
            f"the release cannot be copied to {where}: {_reason(error, address)}; once this is "
            "mended, give the same command again"
        ) from None
    if is_there:
        raise ReleaseError(
            f"a release is already at {where}, and never changes: give another address"
        )
    return where


def _forget_abandoned(cache: Path) -> None:
    """Remove what processes that were killed had fetched so far: else it fills the disk."""
    for path in cache.glob(".*"):
        with suppress(OSError):
            if _FETCHING.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path)


@contextmanager
def _new_directory(directory: Path) -> Iterator[Path]:
    """A temporary sibling that takes the directory's name when the block ends well."""
    refuse_if_there(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield temporary
        # Others read releases: mkdtemp's 0700 is for secrets.
        temporary.chmod(0o755)
        for folder, _, _ in os.walk(temporary):
            _sync(Path(folder))
        temporary.rename(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_if_there(directory: Path) -> None:
    """A release's folder is new or empty: known before what takes long.

    Raises:
        ReleaseError: it is not.
    """
    if directory.is_symlink() or (directory.exists() and not _is_empty(directory)):
        raise ReleaseError(
            f"{directory} is already there; a release never changes: give a new version or "
            "another directory"
        )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_there(filesystem: Any, path: str) -> bool:
    # Not fsspec's ``exists``, which takes any failure for an absence.
    try:
        filesystem.info(path)
    except FileNotFoundError:
        return False
    return True


def _read(filesystem: Any, path: str) -> bytes:
    with filesystem.open(path, "rb") as file:
        data: bytes = file.read()
    return data


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception, address: str) -> str:
    message = str(error).replace(address, without_password(address))
    return f"{type(error).__name__}: {message}"
