"""The data that the demo works on, and a release trained on it; both kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.catalog.build import SEED, write_catalog
from demo.narration import Narrator, Relay
from worker.local.child import ChildProcess
from worker.local.errors import LocalServiceError

__all__ = ["CACHE", "ROOT", "Training", "prepare_data", "program", "train"]

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "demo"

# A release takes some 250 MB: enough to go back and forth between two data sets.
_KEPT_RELEASES = 4
_POLL_S = 0.2
# A run saves its state when told to stop; heads and optimiser are written within seconds.
_TRAIN_GRACE_S = 15.0
_DATA_FILES = ("train.*", "valid.*", "taxonomy.json*")
_RECIPE = "demo"


@dataclass(frozen=True, slots=True)
class Training:
    """What a release is trained from.

    Attributes:
        data: folder of a data set.
        limit: training products at most; None: the recipe's.
        target_accuracy: of what is assigned rather than sent to review; None: the recipe's.
    """

    data: Path
    limit: int | None
    target_accuracy: float | None = None


def program(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def prepare_data(narrator: Narrator) -> Path:
    """The sample catalog's folder; written if the grammar has changed or there is none."""
    sources = sorted((ROOT / "demo" / "catalog").glob("*.*"))
    directory = CACHE / f"catalog-{_digest(sources, [str(SEED)])[:16]}"
    if directory.is_dir():
        narrator.say(f"kept from before: {_shown(directory)}")
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = CACHE / f".catalog-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_catalog(partial)
        shutil.rmtree(directory, ignore_errors=True)
        partial.replace(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    narrator.say(f"written: {_shown(directory)}")
    return directory


def train(training: Training, log_path: Path, narrator: Narrator) -> Path:
    """The release trained on the data by ``sortiment-train run``; a kept one if nothing changed.

    Kept by data, limit, the code of models, kernels and training, and the locked packages.

    Raises:
        LocalServiceError: training failed; with its log.
    """
    release = CACHE / "releases" / _release_key(training) / "flagship"
    if (release / "manifest.json").exists():
        os.utime(release.parent)
        narrator.say(f"kept from before: {_shown(release)}")
        return release
    started_s = time.monotonic()
    release.parent.mkdir(parents=True, exist_ok=True)
    # Two demos at a time may train the same: each for itself, and the first one's is kept.
    staged = release.with_name(f".flagship-{os.getpid()}")
    command = [program("sortiment-train"), "run", _RECIPE, f"data={training.data}"]
    command += [f"out={staged}", f"cache={CACHE / 'training'}"]
    command += [f"progress={'true' if narrator.live else 'false'}"]
    if training.limit is not None:
        command.append(f"limit={training.limit}")
    if training.target_accuracy is not None:
        command.append(f"system.target_accuracy={training.target_accuracy}")
    relay = Relay(log_path, narrator)
    with ChildProcess("sortiment-train run", command, log_path, grace_s=_TRAIN_GRACE_S) as child:
        while (status := child.poll()) is None:
            relay.pump()
            time.sleep(_POLL_S)
        relay.pump()
    if status != 0:
        raise LocalServiceError(
            f"{child.name} ended with status {status}; see above, or {log_path}"
        )
    if release.exists():
        shutil.rmtree(staged)
    else:
        staged.rename(release)
    narrator.say(f"trained in {time.monotonic() - started_s:.0f} s: {_shown(release)}")
    _prune(release.parent.parent)
    return release


def _release_key(training: Training) -> str:
    files = [path for name in _DATA_FILES for path in sorted(training.data.glob(name))]
    for package in ("models", "kernels", "training"):
        files += sorted(
            path for kind in ("*.py", "*.yaml") for path in (ROOT / package).rglob(kind)
        )
    files += [Path(__file__), ROOT / "requirements.lock"]
    return _digest(files, [str(training.limit), str(training.target_accuracy)])[:16]


def _digest(files: Sequence[Path], texts: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _prune(directory: Path) -> None:
    by_use = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_use[_KEPT_RELEASES:]:
        shutil.rmtree(path, ignore_errors=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
