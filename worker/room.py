"""Room for events: taken from Kafka and not yet settled, in number and in bytes."""

from __future__ import annotations

import asyncio

from worker.lanes import Lane, Run

__all__ = ["Room"]


class Room:
    """Counts what is in hand, in all and by lane, and lets one wait while it is too much."""

    def __init__(self, max_products: int, max_bytes: int) -> None:
        self._max_products = max_products
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._freed = asyncio.Event()
        self.num_products = 0

    @property
    def is_left(self) -> bool:
        """Whether more may be taken."""
        return self.num_products < self._max_products and self._num_bytes < self._max_bytes

    @property
    def is_half_left(self) -> bool:
        """Whether less than half of it is taken."""
        return 2 * self.num_products < self._max_products and 2 * self._num_bytes < self._max_bytes

    async def wait(self) -> None:
        """Until there is room."""
        while not self.is_left:
            self._freed.clear()
            await self._freed.wait()

    def take(self, lane: Lane, num_events: int, num_bytes: int) -> None:
        """Events of a lane, admitted to it, are in hand."""
        lane.in_hand += num_events
        lane.in_hand_bytes += num_bytes
        self.num_products += num_events
        self._num_bytes += num_bytes

    def give(self, run: Run) -> None:
        """A run is settled."""
        if run.lane.is_open:
            self._give(run.lane, len(run.outcomes), run.num_bytes)

    def drop(self, lane: Lane) -> None:
        """A lane ends with all that it had in hand."""
        self._give(lane, lane.in_hand, lane.in_hand_bytes)

    def _give(self, lane: Lane, num_events: int, num_bytes: int) -> None:
        lane.in_hand -= num_events
        lane.in_hand_bytes -= num_bytes
        self.num_products -= num_events
        self._num_bytes -= num_bytes
        self._freed.set()
