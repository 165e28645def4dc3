"""A broker of Apache Kafka in KRaft mode: broker and controller in one process of Java."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.local.child import ChildProcess, wait_or_stop, wait_until
from worker.local.errors import LocalServiceError
from worker.local.java import Java
from worker.local.kafka_ready import why_not_ready
from worker.local.ports import ReservedPort

__all__ = ["KafkaBroker", "KafkaRuntime"]

# 3 to 5 s alone on two cores; a busy machine, or three brokers at once, take far longer.
_START_DEADLINE_S = 120.0
_FORMAT_DEADLINE_S = 120.0
_STOP_GRACE_S = 20.0

_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%throwable{8}
"""


@dataclass(frozen=True, slots=True)
class KafkaRuntime:
    """What Kafka's programs run on.

    Args:
        jars: directory of Kafka's jars.
        flags: for the Java virtual machine.
        environ: environment of the processes.
    """

    jars: Path
    java: Java
    flags: Sequence[str]
    environ: Mapping[str, str]

    def command(self, logging: Path, main_class: str, *arguments: str) -> list[str]:
        """A program of Kafka's that logs as the file ``logging`` says."""
        java = [str(self.java.program), *self.flags, f"-Dlog4j2.configurationFile={logging}"]
        return [*java, "-cp", f"{self.jars}/*", main_class, *arguments]


class KafkaBroker:
    """A broker on 127.0.0.1: killed, stopped, frozen, and back on its port with its data.

    Args:
        name: for error messages.
        number: its ``node.id``.
        directory: its data and settings; made by ``format``.
        log_path: gets what all its processes print, one after the other.
        remove: removed if this process dies without closing the broker.
        proxied: port of one more listener, and the address that clients of it are told to go to:
            for a proxy in between.
    """

    def __init__(
        self,
        name: str,
        number: int,
        runtime: KafkaRuntime,
        directory: Path,
        log_path: Path,
        remove: Path,
        *,
        proxied: tuple[ReservedPort, str] | None = None,
    ) -> None:
        self.name = name
        self.number = number
        self.log_path = log_path
        self._runtime = runtime
        self._directory = directory
        self._remove = remove
        self._proxied = proxied
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
    def pid(self) -> int:
        """Of the process that was started last."""
        return self._launched.pid

    @property
    def is_running(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self._child is not None and self._child.poll() is None

    def format(self, cluster_id: str, voters: Sequence[str], settings: Mapping[str, str]) -> None:
        """Write its settings, those given and its own, and prepare its storage.

        Raises:
            LocalServiceError: Kafka refused; with its output.
        """
        controller = self._controller_port.address
        every = dict(settings) | {
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": str(self._directory / "data"),
        }
        if self._proxied is not None:
            port, address = self._proxied
            every["listeners"] += f",PROXIED://{port.address}"
            every["advertised.listeners"] += f",PROXIED://{address}"
            every["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        self._directory.mkdir()
        self._settings_path.write_text("".join(f"{k}={v}\n" for k, v in every.items()))
        self._logging_path.write_text(_LOGGING)
        # One word: an id may begin with a dash.
        given = [f"--cluster-id={cluster_id}", "--config", str(self._settings_path)]
        with self._run("kafka.tools.StorageTool", "format", *given) as child:
            status = child.wait(_FORMAT_DEADLINE_S)
        if status != 0:
            raise LocalServiceError(f"cannot format Kafka's storage\n{child.log_tail()}")

    def launch(self) -> None:
        """Start its process without waiting for an answer."""
        self._child = self._run("kafka.Kafka", str(self._settings_path))

    def wait_ready(self) -> None:
        """Until it answers; it does once the controllers have let it in.

        Raises:
            LocalServiceError: not in time, or it ended; with its log.
        """
        wait_until(self._launched, self._why_not_ready, _START_DEADLINE_S, self._answer)

    def start(self) -> None:
        """Start it on its data and wait until it answers; stopped again where it does not.

        Raises:
            LocalServiceError: as ``wait_ready``.
        """
        self.launch()
        wait_or_stop(self._launched, self._why_not_ready, _START_DEADLINE_S, self._answer)

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

    def _run(self, main_class: str, *arguments: str) -> ChildProcess:
        return ChildProcess(
            self.name,
            self._runtime.command(self._logging_path, main_class, *arguments),
            self.log_path,
            env=self._runtime.environ,
            grace_s=_STOP_GRACE_S,
            remove=[self._remove],
        )

    def _why_not_ready(self) -> str | None:
        return why_not_ready(self.address)

    @property
    def _launched(self) -> ChildProcess:
        assert self._child is not None
        return self._child

    @property
    def _answer(self) -> str:
        return f"an answer on {self.address}"

    @property
    def _settings_path(self) -> Path:
        return self._directory / "server.properties"

    @property
    def _logging_path(self) -> Path:
        return self._directory / "log4j2.properties"
