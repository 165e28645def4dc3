"""Where events to be sent come from: taken a few at a time, in order, as they fall due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from worker.errors import SortimentError
from worker.original_headers import Headers
from worker.product_lines import ProductEvent

__all__ = ["Limited", "Listed", "OutEvent", "Source"]


class OutEvent(NamedTuple):
    """An event to be sent. Without a key, partitions take turns.

    ``topic``: where it goes, if not where all go.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    topic: str | None = None


class Source(Protocol):
    """Events, in order."""

    async def take(self, most: int) -> Sequence[OutEvent]:
        """The next, at most so many; none at the end."""
        ...


class Listed:
    """Products of an iterable, read as needed; what came before an error is given before it."""

    def __init__(self, events: Iterable[ProductEvent]) -> None:
        self._events = iter(events)
        self._error: SortimentError | None = None

    async def take(self, most: int) -> Sequence[OutEvent]:
        """As ``Source.take``."""
        if self._error is not None:
            raise self._error
        chunk: list[ProductEvent] = []
        try:
            chunk.extend(islice(self._events, most))
        except SortimentError as error:
            if not chunk:
                raise
            self._error = error
        return [OutEvent(event.key, event.value) for event in chunk]


class Limited:
    """The first events of a source; None: all of them."""

    def __init__(self, source: Source, limit: int | None) -> None:
        self._source = source
        self._left = limit

    async def take(self, most: int) -> Sequence[OutEvent]:
        """As ``Source.take``."""
        if self._left is None:
            return await self._source.take(most)
        if not self._left:
            return ()
        chunk = await self._source.take(min(most, self._left))
        self._left -= len(chunk)
        return chunk
