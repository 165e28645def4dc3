"""Ctrl-C and SIGTERM, at any point, as one exception in the main thread."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Stopped", "Stops"]

T = TypeVar("T")

# One Ctrl-C may arrive twice, from the terminal and from make: only a later one is impatience.
_SAME_PRESS_S = 1.0


class Stopped(KeyboardInterrupt):
    """A signal asked for the end. A KeyboardInterrupt, because asyncio swallows others.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells report it: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number


class Stops:
    """Within it, the first SIGINT or SIGTERM raises ``Stopped``, once.

    A second one, a second or more later, ends this process at once; the children are tied to it
    and end too (``worker/local/tether.py``).
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._since_s = 0.0
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> Stops:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """``asyncio.run`` that a signal cancels, so that what is open gets closed.

        Raises:
            Stopped: after the work was cancelled and has cleaned up.
        """
        try:
            return asyncio.run(self._cancellable(work))
        except asyncio.CancelledError:
            if self._number is None:
                raise
            raise Stopped(self._number) from None

    async def _cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        event_loop = asyncio.get_running_loop()
        task = event_loop.create_task(work)
        self._cancel = lambda: event_loop.call_soon_threadsafe(task.cancel)
        try:
            return await task
        finally:
            self._cancel = None

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._number is not None:
            if now_s - self._since_s > _SAME_PRESS_S:
                os._exit(128 + number)
            return
        self._number, self._since_s = number, now_s
        if self._cancel is not None:
            self._cancel()
        else:
            raise Stopped(number)
