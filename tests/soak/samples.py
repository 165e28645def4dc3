"""Looks at the workers every few seconds: what each process takes, and what it says of itself."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.process import footprint
from tests.chaos.members import WorkerMember
from tests.streams import metric
from worker.local.errors import LocalServiceError

__all__ = ["Sample", "Sampler", "write_samples"]

_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker at one moment.

    Attributes:
        at_s: seconds from the beginning.
        pid: tells its processes apart.
        lanes: partitions that it has open.
        broker_connections, redis_connections: established ones.
        tasks: of asyncio, that are not done.
    """

    at_s: float
    worker: str
    pid: int
    is_ready: bool
    lanes: int
    rss_bytes: int
    threads: int
    descriptors: int
    broker_connections: int
    redis_connections: int
    tasks: int


class Sampler:
    """Looks on a thread; a worker that does not answer is passed over."""

    def __init__(
        self,
        fleet: Sequence[WorkerMember],
        broker_ports: Collection[int],
        redis_ports: Collection[int],
    ) -> None:
        self.samples: list[Sample] = []
        self._fleet = fleet
        self._broker_ports = broker_ports
        self._redis_ports = redis_ports
        self._started_s = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            for member in self._fleet:
                try:
                    self.samples.append(self._look(member))
                except (OSError, LocalServiceError):
                    continue  # it is down, or starting

    def _look(self, member: WorkerMember) -> Sample:
        process = member.process
        status = process.status()
        tasks = int(metric(process, "tasks"))
        found = footprint(process.pid)
        return Sample(
            at_s=time.monotonic() - self._started_s,
            worker=member.name,
            pid=process.pid,
            is_ready=status["ready"],
            lanes=len(status["hot_path"]["assigned"]),
            rss_bytes=found.rss_bytes,
            threads=found.threads,
            descriptors=found.descriptors,
            broker_connections=sum(port in self._broker_ports for port in found.ports),
            redis_connections=sum(port in self._redis_ports for port in found.ports),
            tasks=tasks,
        )


def write_samples(samples: Sequence[Sample], path: Path) -> None:
    """All of them as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)
