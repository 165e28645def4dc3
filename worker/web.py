"""Health, metrics and status over HTTP."""

from __future__ import annotations

import asyncio
import errno
import platform
import socket
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import faust
from faust.web import Request, Response, View
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from worker.errors import ConfigError
from worker.logs import RecentErrors
from worker.metrics import Metrics
from worker.settings import Settings
from worker.topics import TopicFacts

__all__ = ["Reporter", "WorkerState", "add_views", "check_port"]

_VERSIONS = ("sortiment", "faust-streaming", "aiokafka", "torch", "transformers", "redis")


class Reporter(Protocol):
    """A service that can say how it is."""

    def not_ready(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        ...

    def status(self) -> dict[str, Any]:
        """How it is, as JSON takes it."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the views tell about."""

    settings: Settings
    facts: TopicFacts
    control: Reporter
    hot_path: Reporter
    metrics: Metrics
    errors: RecentErrors

    def not_ready(self) -> list[str]:
        """Why the worker takes no traffic; empty when it does."""
        return [*self.control.not_ready(), *self.hot_path.not_ready()]

    def status(self) -> dict[str, Any]:
        """Everything an operator asks first; holds no secret."""
        reasons = self.not_ready()
        return {
            "ready": not reasons,
            "reasons": reasons,
            "release": self.control.status(),
            "hot_path": self.hot_path.status(),
            "topics": {
                "partitions": dict(self.facts.partitions),
                "max_event_bytes": self.facts.max_event_bytes,
                "differences": list(self.facts.differences),
            },
            "last_errors": self.errors.lines(),
            "settings": self.settings.public(),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in _VERSIONS},
            },
        }


def add_views(app: faust.App, state: WorkerState) -> None:
    """Serve ``/healthz``, ``/readyz``, ``/metrics`` and ``/status`` from the app's web server."""

    @app.page("/healthz")
    async def healthz(view: View, request: Request) -> Response:
        """200 as long as the event loop answers."""
        return view.json({"status": "alive"})

    @app.page("/readyz")
    async def readyz(view: View, request: Request) -> Response:
        """200 with a warm model, masks and partitions; else 503 and why."""
        reasons = state.not_ready()
        return view.json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    @app.page("/metrics")
    async def metrics(view: View, request: Request) -> Response:
        """Prometheus's text format."""
        state.metrics.ready.set(not state.not_ready())
        state.metrics.tasks.set(len(asyncio.all_tasks()))
        return view.bytes(
            generate_latest(state.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    @app.page("/status")
    async def status(view: View, request: Request) -> Response:
        """All that is known, for a person."""
        return view.json(state.status())


def check_port(host: str, port: int) -> None:
    """See that the web server will get its port, before anything else is started.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                [
                    f"SORTIMENT_WEB_PORT (--web-port): port {port} on {host} is taken by another "
                    "process; set a free one"
                ]
            ) from error
        raise ConfigError(
            [
                f"SORTIMENT_WEB_HOST (--web-host), SORTIMENT_WEB_PORT (--web-port): cannot listen "
                f"on {host}:{port}: {error.strerror or error}; set an address of this machine "
                "and a port that this user may take"
            ]
        ) from error
