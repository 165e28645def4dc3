"""Keeps a worker under full load: there is always more to read than it can take."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import cycle, islice

from benchmarks.stream.inputs import Input
from worker.product_lines import ProductEvent

__all__ = ["Backlog"]

_LOOK_S = 0.25


class Backlog:
    """Adds events on a thread whenever fewer than ``least`` wait, until told that it is enough.

    Args:
        events: sent again and again.
        least: also how many are added at a time.
    """

    def __init__(
        self, source: Input, group: str, events: Sequence[ProductEvent], least: int
    ) -> None:
        self.smallest = least
        self._source = source
        self._events = cycle(events)
        self._least = least
        self._watcher = source.watcher(group)
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)

    def start(self) -> None:
        """Fill it, then keep it so."""
        self._fill()
        self._fill()
        self._thread.start()

    def finish(self) -> int:
        """Add no more; returns how many events there are.

        Raises:
            Exception: whatever the feeding thread failed with.
        """
        self._enough.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._source.count

    def committed(self) -> int:
        """How many events are through; after ``finish``."""
        return self._source.committed(self._watcher)

    def close(self) -> None:
        """Stop feeding, whatever has happened."""
        self._enough.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._watcher.close()

    def _run(self) -> None:
        try:
            while not self._enough.wait(_LOOK_S):
                waiting = self._source.count - self._source.committed(self._watcher)
                self.smallest = min(self.smallest, waiting)
                if waiting < 2 * self._least:
                    self._fill()
        except BaseException as error:  # noqa: BLE001  raised by ``finish``
            self._failure = error

    def _fill(self) -> None:
        self._source.fill(list(islice(self._events, self._least)))
