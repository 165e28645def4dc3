"""What spoils a measurement: other processes on the same cores, code that changes meanwhile."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

__all__ = ["OtherLoad", "code_digest"]

_PROC = Path("/proc")


class OtherLoad:
    """Processor time that processes other than ours and our descendants take from now on."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._before = _busy_and_ours()

    def cores(self) -> float | None:
        """Mean number of cores that others kept busy; None where the system does not say.

        Descendants must still run: what an ended one used counts as somebody else's.
        """
        after = _busy_and_ours()
        if self._before is None or after is None:
            return None
        others_s = (after[0] - self._before[0]) - (after[1] - self._before[1])
        return max(0.0, others_s / (time.monotonic() - self._started_s))


def code_digest(root: Path, folders: Sequence[str]) -> str:
    """SHA-256 over the Python files of folders: equal before and after one measurement."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _busy_and_ours() -> tuple[float, float] | None:
    """Busy seconds of all cores, and those of this process and its descendants."""
    if not (_PROC / "stat").exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq: proc(5)
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:8]]
    busy = (sum(fields) - fields[3] - fields[4]) / tick
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            after_name = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        pid = int(directory.name)
        children[int(after_name[1])].append(pid)
        used[pid] = (int(after_name[11]) + int(after_name[12])) / tick
    ours, pending = 0.0, [os.getpid()]
    while pending:
        pid = pending.pop()
        ours += used.get(pid, 0.0)
        pending += children[pid]
    return busy, ours
