"""Watches a worker from outside: its memory, and how long its model's batches take."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass

from benchmarks.process import footprint
from worker.local.errors import LocalServiceError
from worker.local.worker_process import WorkerProcess

__all__ = ["Batches", "Memory", "Probe", "batch_in_hand_s"]

# The worker's event loop answers: ten times a second cost it some hundredths of a core.
_EVERY_S = 0.1
_MEMORY_EVERY = 10
_STAGE = 'sortiment_stage_seconds_{}{{stage="model"}}'


@dataclass(frozen=True, slots=True)
class Batches:
    """The model's batches so far: how many, and their time together."""

    at_s: float
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory at a time, epoch seconds."""

    at_s: float
    rss_bytes: int


class Probe:
    """Looks on a thread until ``close``."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.batches: list[Batches] = []
        self.memory: list[Memory] = []
        self._worker = worker
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. May be called again."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._is_over.wait(_EVERY_S):
            try:
                if looks % _MEMORY_EVERY == 0:
                    rss_bytes = footprint(self._worker.pid).rss_bytes
                    self.memory.append(Memory(time.time(), rss_bytes))
                self.batches.append(_read(self._worker.metrics()))
            except (OSError, LocalServiceError):
                if self._worker.child.poll() is not None:
                    return  # whoever waits for its outputs says so
            looks += 1


def batch_in_hand_s(batches: list[Batches], start_s: float, end_s: float) -> float:
    """The longest of the batches that ended between two looks around a span of time; 0: none did.

    Where several ended between two looks their mean counts.
    """
    longest = 0.0
    for before, after in itertools.pairwise(batches):
        if after.at_s >= start_s and before.at_s <= end_s:
            ended = after.count - before.count
            if ended:
                longest = max(longest, (after.seconds - before.seconds) / ended)
    return longest


def _read(metrics: str) -> Batches:
    count = seconds = 0.0
    for line in metrics.splitlines():
        if line.startswith(_STAGE.format("count")):
            count = float(line.rpartition(" ")[2])
        elif line.startswith(_STAGE.format("sum")):
            seconds = float(line.rpartition(" ")[2])
    return Batches(time.time(), int(count), seconds)
