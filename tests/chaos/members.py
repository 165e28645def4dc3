"""What can be hit: a worker or a broker, each of which comes back."""

from __future__ import annotations

import datetime
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from worker.local.errors import LocalServiceError
from worker.local.kafka_cluster import KafkaBroker, KafkaCluster
from worker.local.worker_process import WorkerProcess

__all__ = ["BrokerMember", "Journal", "Member", "WorkerMember", "workers"]

_DRAIN_S = 40.0
_READY_S = 120.0


class Journal:
    """What was done to whom and when, in the time and manner of the worker's log.

    Args:
        path: appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.oddities: list[str] = []

    def note(self, text: str) -> None:
        """Write a line."""
        at = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="milliseconds")
        with self._lock, self._path.open("a") as journal:
            journal.write(f"{at} {text}\n")

    def odd(self, text: str) -> None:
        """Write a line that the table is to mention too."""
        self.oddities.append(text)
        self.note(f"ODD: {text}")


class Member(Protocol):
    """One of three, of which the others go on."""

    @property
    def name(self) -> str:
        """For the journal."""
        ...

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        ...

    def terminate(self) -> None:
        """SIGTERM, and wait until it is gone."""
        ...

    def freeze(self) -> None:
        """SIGSTOP."""
        ...

    def thaw(self) -> None:
        """SIGCONT."""
        ...

    def start(self) -> None:
        """Start it again after ``kill`` or ``terminate``."""
        ...

    def wait_well(self) -> None:
        """Until it does its work again, and the loss of another would be borne.

        Raises:
            LocalServiceError: not in time.
        """
        ...


class BrokerMember:
    """A broker of the cluster."""

    def __init__(self, broker: KafkaBroker, cluster: KafkaCluster) -> None:
        self._broker = broker
        self._cluster = cluster
        self.kill = broker.kill
        self.terminate = broker.terminate
        self.freeze = broker.freeze
        self.thaw = broker.thaw
        self.start = broker.start

    @property
    def name(self) -> str:
        """As ``Member.name``."""
        return f"broker-{self._broker.number}"

    def wait_well(self) -> None:
        """As ``Member.wait_well``."""
        self._cluster.wait_whole()


class WorkerMember:
    """A worker: each start is a new process with the same settings and the same log."""

    def __init__(
        self, name: str, settings: Mapping[str, object], directory: Path, journal: Journal
    ) -> None:
        self.name = name
        self._settings = settings
        self._directory = directory
        self._journal = journal
        self._process = self._new()

    @property
    def process(self) -> WorkerProcess:
        """The one that runs now, or ran last."""
        return self._process

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.child.poll() is not None

    @property
    def log_path(self) -> Path:
        """What all its processes printed."""
        return self._process.log_path

    def kill(self) -> None:
        """As ``Member.kill``."""
        self._process.kill()

    def terminate(self) -> None:
        """As ``Member.terminate``; notes an exit status other than 0."""
        self._process.terminate()
        try:
            status = self._process.wait(_DRAIN_S)
        except LocalServiceError:
            self._journal.odd(f"{self.name} did not end within {_DRAIN_S:g} s of SIGTERM")
            self._process.kill()
        else:
            if status != 0:
                self._journal.odd(f"{self.name} ended with status {status} after SIGTERM")

    def freeze(self) -> None:
        """As ``Member.freeze``."""
        self._process.child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """As ``Member.thaw``."""
        self._process.child.send_signal(signal.SIGCONT)

    def start(self) -> None:
        """As ``Member.start``."""
        self._process.stop()  # ended already; its port is let go
        self._process = self._new()

    def wait_ready(self) -> None:
        """Until it is.

        Raises:
            LocalServiceError: not in time, or it ended.
        """
        self._process.wait_ready(_READY_S)

    def wait_well(self) -> None:
        """As ``Member.wait_well``; but what goes wrong is noted: the others do its work."""
        try:
            self.wait_ready()
        except LocalServiceError as error:
            self._journal.odd(str(error).splitlines()[0])

    def mend(self) -> None:
        """Start it again if it has ended by itself, as whatever runs it for real would."""
        if self.has_ended:
            self._journal.odd(f"{self.name} ended by itself, status {self._process.child.poll()}")
            self.start()

    def write_status(self) -> None:
        """Keep what it says of itself beside its log: why nothing comes out."""
        try:
            status = json.dumps(self._process.status(), indent=2)
        except LocalServiceError as error:
            status = str(error)
        self.log_path.with_suffix(".status.json").write_text(status)

    def close(self) -> None:
        """Kill it and let its port go."""
        self._process.kill()
        self._process.stop()

    def _new(self) -> WorkerProcess:
        return WorkerProcess(
            self._settings, directory=self._directory, environ=os.environ, name=self.name
        )


@contextmanager
def workers(
    num: int, settings: Mapping[str, object], directory: Path, journal: Journal
) -> Iterator[list[WorkerMember]]:
    """Workers that are ready; killed at the end of the block.

    Raises:
        LocalServiceError: one is not ready in time; with its log.
    """
    started: list[WorkerMember] = []
    try:
        for number in range(1, num + 1):
            member = WorkerMember(f"worker-{number}", settings, directory, journal)
            started.append(member)  # at once: the next may fail to start
        for member in started:
            member.wait_ready()
        yield started
    finally:
        for member in started:
            member.close()
