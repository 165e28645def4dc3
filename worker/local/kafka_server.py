"""One Apache Kafka broker in KRaft mode, broker and controller in one process of Java."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from worker.local.child import ChildProcess, wait_until
from worker.local.errors import LocalServiceError
from worker.local.java import Java
from worker.local.kafka_ready import why_not_ready
from worker.local.ports import ReservedPort

__all__ = ["MAX_MESSAGE_BYTES", "KafkaServer", "broker_settings"]

# The largest input (1 MiB) and the 64 KiB more of its dead letter, with room for topics that
# somebody allows larger ones on: the limit that matters is each topic's own.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_START_DEADLINE_S = 90.0  # 3 to 5 s alone on two cores; a busy machine takes far longer
_STOP_GRACE_S = 20.0
_FORMAT_DEADLINE_S = 90.0

_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%throwable{8}
"""


def broker_settings(replication: int = 1) -> dict[str, str]:
    """What every local broker is told, whether Java or Docker runs it."""
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "8",
        "offsets.topic.replication.factor": str(replication),
        "transaction.state.log.num.partitions": "8",
        "transaction.state.log.replication.factor": str(replication),
        "transaction.state.log.min.isr": str(replication),
        "share.coordinator.state.topic.replication.factor": str(replication),
        "share.coordinator.state.topic.min.isr": str(replication),
        "default.replication.factor": str(replication),
        # A killed broker is let back in when its old session ends; 9 s by default.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        # A throw-away broker: small index files, nothing kept for long.
        "log.index.size.max.bytes": "1048576",
        "log.segment.bytes": "268435456",
    }


class KafkaServer:
    """A broker on 127.0.0.1 with its data in a temporary folder that ``close`` removes.

    Args:
        jars: directory of Kafka's jars.
        java: the runtime.
        environ: environment of the processes.

    Raises:
        LocalServiceError: it did not start; with its log.
    """

    def __init__(self, jars: Path, java: Java, environ: Mapping[str, str]) -> None:
        self._java = java
        self._environ = environ
        self._classpath = f"{jars}/*"
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-kafka-"))
        self.log_path = self.directory / "kafka.log"
        self._port = ReservedPort()
        self._controller_port = ReservedPort()
        self._child: ChildProcess | None = None
        try:
            self._write_settings()
            self._format()
            self.start()
        except BaseException:
            self._child = None
            self.close(keep_log=True)
            raise

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients; the same after a restart."""
        return self._port.address

    def start(self) -> None:
        """Start the broker on its data and wait until it answers.

        Raises:
            LocalServiceError: it did not answer in time or ended; with its log.
        """
        child = ChildProcess(
            "Apache Kafka",
            self._command("kafka.Kafka", str(self._settings_path), heap="512m"),
            self.log_path,
            env=self._environ,
            grace_s=_STOP_GRACE_S,
            remove=[self.directory],
        )
        try:
            wait_until(
                child,
                lambda: why_not_ready(self.bootstrap_servers),
                _START_DEADLINE_S,
                f"an answer on {self.bootstrap_servers}",
            )
        except BaseException:
            child.stop()
            raise
        self._child = child

    def stop(self) -> None:
        """Stop the broker in order; data and port stay for ``start``."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End the broker as a power cut would (SIGKILL); data and port stay for ``start``."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self, *, keep_log: bool = False) -> None:
        """Stop the broker, let its ports go and remove its folder, the log perhaps excepted."""
        self.stop()
        self._port.close()
        self._controller_port.close()
        if keep_log:
            shutil.rmtree(self._data, ignore_errors=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _settings_path(self) -> Path:
        return self.directory / "server.properties"

    def _write_settings(self) -> None:
        controller = self._controller_port.address
        settings = broker_settings() | {
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self._port.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self._port.address}",
            "log.dirs": str(self._data),
        }
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        self._settings_path.write_text(text)
        (self.directory / "log4j2.properties").write_text(_LOGGING)

    def _format(self) -> None:
        arguments = ["format", "--cluster-id", _cluster_id(), "--config", str(self._settings_path)]
        command = self._command("kafka.tools.StorageTool", *arguments, heap="256m")
        with self.log_path.open("ab") as log:
            ran = subprocess.run(
                command,
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

    def _command(self, main_class: str, *arguments: str, heap: str) -> list[str]:
        return [
            str(self._java.program),
            f"-Xmx{heap}",
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
            "-cp",
            self._classpath,
            main_class,
            *arguments,
        ]


def _cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # the command line would take it for a flag
            return text
