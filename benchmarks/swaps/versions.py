"""One release under many versions: the same files, so that they take no room of their own."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath

from models.manifest import MANIFEST, Manifest
from worker.announcement import Announcement

__all__ = ["announcement", "as_version"]


def as_version(release: Path, target: Path, version: str) -> Path:
    """``target``: the release with another version in its manifest, and links to the same files."""
    manifest = Manifest.parse((release / MANIFEST).read_bytes(), str(release))
    target.mkdir(parents=True)
    for path in manifest.files:
        source, link = release / PurePosixPath(path), target / PurePosixPath(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, link)
        except OSError:  # another file system
            shutil.copyfile(source, link)
    (target / MANIFEST).write_bytes(replace(manifest, version=version).to_json())
    return target


def announcement(release: Path) -> Announcement:
    """What ``sortiment-worker announce`` writes about a release, without its verification."""
    content = (release / MANIFEST).read_bytes()
    manifest = Manifest.parse(content, str(release))
    return Announcement(
        release=f"{manifest.name}/{manifest.version}",
        address=str(release.resolve()),
        manifest_sha256=sha256(content).hexdigest(),
        announced_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
