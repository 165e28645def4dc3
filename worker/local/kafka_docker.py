"""One Apache Kafka broker in a container, for machines with Docker and without Maven.

Written after the image's documentation; not yet run against a Docker engine.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from worker.local.child import ChildProcess, wait_or_stop
from worker.local.errors import LocalServiceError, ServiceMissing
from worker.local.kafka_ready import why_not_ready
from worker.local.kafka_server import broker_settings
from worker.local.kafka_sources import kafka_version
from worker.local.ports import LOOPBACK, ReservedPort

__all__ = ["KafkaContainer"]

_LABEL = "sortiment.local-service"
_PULL_DEADLINE_S = 600
_COMMAND_DEADLINE_S = 60
_START_DEADLINE_S = 120.0
_STOP_GRACE_S = 20.0


class KafkaContainer:
    """A broker of the image ``apache/kafka``, reached on 127.0.0.1, gone after ``close``.

    Raises:
        ServiceMissing: no Docker client here, or the image cannot be had.
        LocalServiceError: the broker did not start; with its log.
    """

    def __init__(self, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        docker = shutil.which("docker", path=environ.get("PATH"))
        if docker is None:
            raise ServiceMissing("docker is not on PATH")
        self._docker = docker
        self._environ = environ
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-kafka-"))
        self.log_path = self.directory / "kafka.log"
        self._name = f"sortiment-kafka-{uuid.uuid4().hex[:12]}"
        self._child: ChildProcess | None = None
        port = ReservedPort()
        self.bootstrap_servers = port.address
        try:
            self._remove_leftovers()
            self._pull(say)
            self._create(port.number)
            port.close()  # Docker's own proxy binds it now
            self.start()
        except BaseException:
            port.close()
            self.close(keep_log=True)
            raise

    def start(self) -> None:
        """Start the container on its data and wait until the broker answers.

        Raises:
            LocalServiceError: it did not answer in time or ended; with its log.
        """
        # The attached client passes SIGTERM on to the broker, so the container ends with us.
        child = ChildProcess(
            "Apache Kafka in Docker",
            [self._docker, "start", "--attach", self._name],
            self.log_path,
            env=self._environ,
            grace_s=_STOP_GRACE_S,
            remove=[self.directory],
        )
        wait_or_stop(
            child,
            lambda: why_not_ready(self.bootstrap_servers),
            _START_DEADLINE_S,
            f"an answer on {self.bootstrap_servers}",
        )
        self._child = child

    def stop(self) -> None:
        """Stop the broker in order; its data stays for ``start``."""
        self._end("stop", "--time", str(int(_STOP_GRACE_S)))

    def kill(self) -> None:
        """End the broker as a power cut would; its data stays for ``start``."""
        self._end("kill")

    def close(self, *, keep_log: bool = False) -> None:
        """Stop the broker and remove container, data and folder, the log perhaps excepted."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._run("rm", "--force", "--volumes", self._name)
        if not keep_log:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, *command: str) -> None:
        if self._child is not None:
            self._run(*command, self._name)
            self._child.stop()
            self._child = None

    def _remove_leftovers(self) -> None:
        # Containers that a killed run left stopped; one of today may only wait for its restart.
        self._run(
            "container", "prune", "--force", "--filter", f"label={_LABEL}", "--filter", "until=24h"
        )

    def _pull(self, say: Callable[[str], None]) -> None:
        if self._run("image", "inspect", self._image).returncode == 0:
            return
        say(f"pulling the Docker image {self._image} (once)")
        pulled = self._run("pull", self._image, deadline_s=_PULL_DEADLINE_S)
        if pulled.returncode != 0:
            raise ServiceMissing(f"docker cannot pull {self._image}: {pulled.stdout.strip()}")

    def _create(self, port: int) -> None:
        settings = broker_settings() | {
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:9093",
            "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://{LOOPBACK}:9093",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        }
        command = ["create", "--name", self._name, "--label", _LABEL]
        command += ["--publish", f"{LOOPBACK}:{port}:{port}"]
        command += ["--env", "KAFKA_HEAP_OPTS=-Xmx512m"]
        for key, value in settings.items():
            command += ["--env", f"KAFKA_{key.upper().replace('.', '_')}={value}"]
        created = self._run(*command, self._image)
        if created.returncode != 0:
            raise LocalServiceError(
                f"docker cannot create a container of {self._image}: {created.stdout.strip()}"
            )

    @property
    def _image(self) -> str:
        return f"apache/kafka:{kafka_version()}"

    def _run(
        self, *arguments: str, deadline_s: float = _COMMAND_DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._docker, *arguments],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LocalServiceError(
                f"docker {arguments[0]} did not finish within {deadline_s:g} s"
            ) from None
