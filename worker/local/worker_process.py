"""A `sortiment-worker run` of demo, tests and benchmarks, as a child process."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from worker.local.child import ChildProcess, wait_until
from worker.local.errors import LocalServiceError
from worker.local.ports import LOOPBACK, ReservedPort
from worker.settings import PREFIX, variable

__all__ = ["WorkerProcess", "without_settings"]

_READY_DEADLINE_S = 120.0  # a model that is loaded, checked and warmed on a busy machine
_ANSWER_S = 5.0


class WorkerProcess:
    """A worker with its own port and log. Settings of the person's environment do not reach it.

    Args:
        settings: by name as in ``worker.settings.Settings`` (``bootstrap_servers``, ``group_id``).
        directory: working directory (a ``.env`` in it counts) and place of the log.
        environ: the environment (``os.environ``).
        name: for the log's name and for errors.
        program: what stands in for ``sortiment-worker``.
        grace_s: from SIGTERM to SIGKILL when stopped; above the worker's ``drain_timeout_s``.

    Raises:
        LocalServiceError: the program cannot be started.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        *,
        directory: Path,
        environ: Mapping[str, str],
        name: str = "worker",
        program: Sequence[str] | None = None,
        grace_s: float = 40.0,
    ) -> None:
        self._port = ReservedPort()
        given = {"web_host": LOOPBACK, "web_port": self._port.number} | dict(settings)
        self._web = (str(given["web_host"]), int(str(given["web_port"])))
        self.child = ChildProcess(
            name,
            [*(program or [str(Path(sys.executable).with_name("sortiment-worker"))]), "run"],
            directory / f"{name}.log",
            env=without_settings(environ) | {variable(k): str(v) for k, v in given.items()},
            cwd=directory,
            grace_s=grace_s,
        )

    @property
    def url(self) -> str:
        """Where health, metrics and status are served."""
        return f"http://{self._web[0]}:{self._web[1]}"

    @property
    def pid(self) -> int:
        """Process id of the worker itself."""
        return self.child.pid

    @property
    def log_path(self) -> Path:
        """Everything the worker printed."""
        return self.child.log_path

    def wait_ready(self, deadline_s: float = _READY_DEADLINE_S) -> None:
        """Until ``/readyz`` says yes.

        Raises:
            LocalServiceError: the worker ended, or is not ready in time; with reason and log.
        """
        wait_until(self.child, self._why_not_ready, deadline_s, f"ready on {self.url}/readyz")

    def status(self) -> dict[str, Any]:
        """What ``/status`` answers.

        Raises:
            LocalServiceError: the worker does not answer.
        """
        status: dict[str, Any] = json.loads(self._get("/status")[1])
        return status

    def metrics(self) -> str:
        """What ``/metrics`` answers, in Prometheus' text format.

        Raises:
            LocalServiceError: the worker does not answer.
        """
        return self._get("/metrics")[1].decode()

    def terminate(self) -> None:
        """SIGTERM, without waiting: the worker drains."""
        self.child.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """The exit status once it has ended by itself or by ``terminate``.

        Raises:
            LocalServiceError: still running after ``timeout_s``.
        """
        return self.child.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.child.kill()

    def stop(self) -> int:
        """SIGTERM, wait for the drain; the exit status. May be called again."""
        status = self.child.stop()
        self._port.close()
        return status

    def _why_not_ready(self) -> str | None:
        try:
            code, body = self._get("/readyz")
        except LocalServiceError as error:
            return str(error)
        return None if code == http.HTTPStatus.OK else body.decode(errors="replace")

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._web, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LocalServiceError(f"{self.url}{path} does not answer: {error}") from error
        finally:
            connection.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment that holds no setting of the worker's: it then runs on its defaults."""
    ours = {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}
    return {k: v for k, v in environ.items() if k not in ours and not k.startswith(PREFIX)}
