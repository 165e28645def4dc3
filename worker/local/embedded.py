"""librdkafka's in-process mock cluster as a process of its own: a Kafka for a first look.

``python -m worker.local.embedded`` prints its bootstrap address and serves until standard input
ends or SIGTERM. It has one broker, creates topics on first use with four partitions each, keeps at
most 5 MB and 100,000 events a partition (the oldest vanish silently), and its transactions prove
nothing.
"""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from confluent_kafka import Producer

from worker.local.child import ChildProcess, wait_or_stop
from worker.local.errors import LocalServiceError
from worker.local.kafka_ready import why_not_ready

__all__ = [
    "MAX_PARTITION_BYTES",
    "MAX_PARTITION_EVENTS",
    "NUM_PARTITIONS",
    "EmbeddedKafka",
    "serve",
]

# What librdkafka's mock broker does (seen with confluent-kafka 2.x), not settings of ours.
NUM_PARTITIONS = 4
MAX_PARTITION_BYTES = 5 * 1024 * 1024
MAX_PARTITION_EVENTS = 100_000

_START_DEADLINE_S = 30.0
_STOP_GRACE_S = 3.0


class EmbeddedKafka:
    """The mock cluster in a child process. A restart loses everything and moves the address.

    Raises:
        LocalServiceError: it did not start; with its log.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-embedded-"))
        self.log_path = self.directory / "embedded.log"
        self.bootstrap_servers = ""
        address_path = self.directory / "address"
        self._child = ChildProcess(
            "embedded Kafka",
            [sys.executable, "-m", "worker.local.embedded"],
            self.log_path,
            out_path=address_path,
            grace_s=_STOP_GRACE_S,
            remove=[self.directory],
        )

        def ready() -> str | None:
            address, end_of_line, _ = address_path.read_text().partition("\n")
            if not end_of_line:
                return "no address yet"
            self.bootstrap_servers = address
            return why_not_ready(address)

        wait_or_stop(self._child, ready, _START_DEADLINE_S, "an answer")

    def start(self) -> None:
        """Refused: the mock cluster keeps nothing outside its process."""
        raise LocalServiceError("the embedded Kafka cannot be restarted: it keeps nothing")

    def stop(self) -> None:
        """End it; its topics are gone."""
        self._child.stop()

    def kill(self) -> None:
        """End it at once; its topics are gone."""
        self._child.kill()

    def close(self) -> None:
        """End it and remove its folder."""
        self._child.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def serve() -> None:
    """Run the mock cluster in this process until standard input ends or SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in a terminal: end, no traceback
    silent = logging.getLogger("worker.local.embedded")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    # The address is replaced by the cluster's own; it must be there all the same.
    host = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1}, logger=silent)
    brokers = host.list_topics(timeout=_START_DEADLINE_S).brokers.values()
    sys.stdout.write(",".join(f"{broker.host}:{broker.port}" for broker in brokers) + "\n")
    sys.stdout.flush()
    while sys.stdin.buffer.read(4096):
        continue


if __name__ == "__main__":
    serve()
