"""SIGTERM and SIGINT: one stop, bounded whatever hangs."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["FORCED_EXIT_CODE", "GRACE_S", "Shutdown"]

_log = logging.getLogger(__name__)

# After the drain: closing clients and the web server takes well under a second each.
GRACE_S = 5.0
FORCED_EXIT_CODE = 1


class Shutdown:
    """Asks for one stop and sees to it that the process ends.

    Args:
        drain_timeout_s: what the drain may take; the process is gone ``GRACE_S`` later.
    """

    def __init__(self, drain_timeout_s: float) -> None:
        self._limit_s = drain_timeout_s + GRACE_S
        self._watchdog: threading.Timer | None = None
        self.requested = asyncio.Event()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within it, a signal sets ``requested``; later ones change nothing."""
        event_loop = asyncio.get_running_loop()

        def stop(number: int, _: FrameType | None) -> None:
            # Not the loop's own handlers: these would wait for a loop that hangs.
            self.start_watchdog()
            event_loop.call_soon_threadsafe(self._request, signal.Signals(number).name)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Once stopping, a signal that comes late must not kill what still closes.
                signal.signal(number, signal.SIG_IGN if self.requested.is_set() else handler)

    def start_watchdog(self) -> None:
        """From now the process has its limit; it is never lifted."""
        if self._watchdog is None:
            self._watchdog = threading.Timer(self._limit_s, self._force)
            self._watchdog.daemon = True
            self._watchdog.start()

    def leave(self, code: int) -> NoReturn:
        """End the process now: a library's thread that still runs would be waited for."""
        logging.shutdown()
        os._exit(code)

    def _request(self, name: str) -> None:
        if not self.requested.is_set():
            _log.info("%s: stopping, within %g s", name, self._limit_s)
            self.requested.set()

    def _force(self) -> None:
        _log.critical("not stopped within %g s: leaving now; every thread was at", self._limit_s)
        faulthandler.dump_traceback(sys.stderr)
        os._exit(FORCED_EXIT_CODE)
