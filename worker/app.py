"""The worker, wired: Faust's app with its web views, the hot path and the control reader.

The three are siblings in one ``faust.Worker``. An app's own services start only after Faust's
group is assigned and recovered, so trouble there would stop the products.
"""

from __future__ import annotations

import asyncio
import logging

import faust

from worker.components import build_control, build_hot_path
from worker.errors import SortimentError
from worker.hot_path import HotPath
from worker.logs import RecentErrors, set_up_logging
from worker.metrics import Metrics
from worker.releases import ReleaseControl
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.topics import TopicFacts, ensure_topics
from worker.web import WorkerState, add_views, check_port

__all__ = ["SortimentWorker", "build", "run", "supervise"]

_log = logging.getLogger(__name__)


def build(settings: Settings, facts: TopicFacts, errors: RecentErrors) -> SortimentWorker:
    """All that runs in this process; nothing is started yet."""
    metrics = Metrics()
    hot_path = build_hot_path(settings, facts, metrics)
    control = build_control(settings, hot_path, metrics)
    app = _App(
        settings.group_id,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        web_bind=settings.web_host,
        web_port=settings.web_port,
        web_router_enabled=False,
        web_tables_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        env={},  # Faust would let WEB_PORT, BROKER_URL and others overrule what is given here
    )
    add_views(app, WorkerState(settings, facts, control, hot_path, metrics, errors))
    return SortimentWorker(app, hot_path, control)


def run(settings: Settings) -> int:
    """Run a worker until it is told to stop or fails. Returns the exit code.

    Raises:
        ConfigError: what is wrong was only to be seen by trying: a taken port, unfit topics.
        SortimentError: a service failed in a way that is known; the message says it all.
    """
    errors = set_up_logging(settings.log_level, settings.log_format, settings.secrets())
    check_port(settings.web_host, settings.web_port)
    return asyncio.run(_run(settings, errors))


async def _run(settings: Settings, errors: RecentErrors) -> int:
    shutdown = Shutdown(settings.drain_timeout_s)
    with shutdown.on_signals():
        requested = asyncio.create_task(shutdown.requested.wait())
        starting = asyncio.create_task(ensure_topics(settings.kafka(), settings.topics()))
        await asyncio.wait({starting, requested}, return_when=asyncio.FIRST_COMPLETED)
        if requested.done():
            starting.cancel()
            return 0
        worker = build(settings, starting.result(), errors)
        _log.info("status on http://%s:%d/status", settings.web_host, settings.web_port)
        return await supervise(worker, shutdown)


async def supervise(worker: SortimentWorker, shutdown: Shutdown) -> int:
    """Run a worker until a stop is requested (exit code 0) or a service fails (1).

    Raises:
        SortimentError: what a service failed with, where that is an error of the project's own.
    """
    requested = asyncio.create_task(shutdown.requested.wait())
    # Ends by itself only when a service has failed.
    running = asyncio.create_task(worker.start())
    await asyncio.wait({running, requested}, return_when=asyncio.FIRST_COMPLETED)
    shutdown.start_watchdog()
    await worker.stop()
    failure = worker.crash_reason or (running.exception() if running.done() else None)
    if failure is None:
        _log.info("stopped")
        if worker.control.is_loading:
            shutdown.leave(0)
        return 0
    if isinstance(failure, SortimentError):
        raise failure
    _log.critical("the worker failed: %r", failure, exc_info=failure)
    return 1


class _App(faust.App):
    """An app that hosts web views; without agents it needs neither producer nor group."""

    mundane_level = "debug"

    class BootStrategy(faust.app.BootStrategy):
        """Web server only."""

        enable_kafka = False

    async def on_first_start(self) -> None:
        """Make no folders: there are no tables."""


class SortimentWorker(faust.Worker):
    """A worker that leaves logs and signals to the project and drains products first."""

    def __init__(self, app: faust.App, hot_path: HotPath, control: ReleaseControl) -> None:
        super().__init__(app, hot_path, control, override_logging=False, quiet=True)
        self.spinner = None
        self.hot_path = hot_path
        self.control = control

    def install_signal_handlers(self) -> None:
        """None: ``worker.shutdown`` has its own, which work while the event loop hangs."""

    async def on_stop(self) -> None:
        """Drain before anything else of Faust's takes time."""
        await self.hot_path.stop()
