"""Which input is read next: live products first, past ones only while no live one waits.

The backfill topic is read by the same group, with lanes like any other. Its partitions are held
back, unpolled and paused, while a live partition of this worker has events that were not taken,
is not open yet, or has not been heard of; and while half of what may be in hand is taken. A live
topic that always lags starves the backfill: that is what it is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from worker.metrics import Metrics
from worker.room import Room

__all__ = ["Priorities", "Turn"]

_POLL_MS = 1_000
# While the backfill is held: how soon it is looked at again, at the latest.
_HELD_POLL_MS = 100
_ENDS_S = 2.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What is polled next.

    Attributes:
        partitions: the ones to poll; none named: all.
        most: largest window.
        timeout_ms: longest wait for its first event.
    """

    partitions: tuple[TopicPartition, ...]
    most: int
    timeout_ms: int = _POLL_MS


class Priorities:
    """Chooses between the live topic and that of the backfill, where there is one.

    Args:
        backfill_topic: None: everything is live.
        backfill_records: largest window that past products may be in: live ones wait behind it.
        room: what may be in hand.

    Attributes:
        consumer: set before it is started.
        why_held: why past products are held back; None while they are read, or there are none.
    """

    def __init__(
        self,
        live_topic: str,
        backfill_topic: str | None,
        backfill_records: int,
        room: Room,
        metrics: Metrics,
    ) -> None:
        self._live_topic = live_topic
        self._backfill_topic = backfill_topic
        self._backfill_records = backfill_records
        self._room = room
        self._metrics = metrics
        self.consumer: AIOKafkaConsumer
        self.why_held: str | None = None

    @property
    def topics(self) -> list[str]:
        """What to subscribe to."""
        return [self._live_topic] + ([self._backfill_topic] if self._backfill_topic else [])

    def may_fetch(self, partition: TopicPartition) -> bool:
        """Whether a partition that is open need not be paused."""
        return self.why_held is None or partition.topic != self._backfill_topic

    def status(self) -> dict[str, Any] | None:
        """How the backfill is, as JSON takes it; None where there is none."""
        if self._backfill_topic is None:
            return None
        return {
            "topic": self._backfill_topic,
            "held": self.why_held is not None,
            "why": self.why_held,
        }

    def next_turn(self, lanes: Collection[TopicPartition], most: int) -> Turn:
        """What to poll now; pauses or resumes the backfill's partitions.

        Args:
            lanes: the partitions that are open.
            most: largest window.
        """
        if self._backfill_topic is None:
            return Turn((), most)
        assigned = self.consumer.assignment()
        live = tuple(each for each in assigned if each.topic == self._live_topic)
        past = assigned - set(live)
        self.why_held = self._why_held(live, lanes) if past else None
        self._metrics.backfill_held.set(self.why_held is not None)
        self._pause_or_resume(past.intersection(lanes))
        if self.why_held is not None:
            return Turn(live, most, _HELD_POLL_MS)
        # Live events may come meanwhile: they are the next turn's, if there is no room in this one.
        return Turn((), min(most, self._backfill_records) if past else most)

    async def ends_of_held(self, lanes: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ends of the partitions that are held back, since no fetch tells of them."""
        held = [each for each in lanes if not self.may_fetch(each)]
        if not held:
            return {}
        try:
            async with asyncio.timeout(_ENDS_S):
                ends: dict[TopicPartition, int] = await self.consumer.end_offsets(held)
        except (KafkaError, TimeoutError):
            return {}
        return ends

    def _why_held(
        self, live: Collection[TopicPartition], lanes: Collection[TopicPartition]
    ) -> str | None:
        if not live:
            return None
        opening = [each for each in live if each not in lanes]
        if opening:
            return f"{len(opening)} live partitions are not open yet"
        waiting = {each: self._waiting(each) for each in live}
        unknown = [each for each, number in waiting.items() if number is None]
        if unknown:
            return f"not known yet what waits in {len(unknown)} live partitions"
        number = sum(filter(None, waiting.values()))
        if number:
            return f"{number} live events wait"
        if not self._room.is_half_left:
            return "half of what may be in hand is taken"
        return None

    def _waiting(self, partition: TopicPartition) -> int | None:
        """Events of a live partition that can be read and were not taken; None: not known."""
        # aiokafka's own question for the position waits while there is none.
        state = self.consumer._subscription.subscription.assignment.state_value(partition)  # noqa: SLF001
        # Nobody may read beyond a transaction that is open: that is no lag of ours.
        end = state.highwater if state.lso is None or state.lso < 0 else state.lso
        if end is None or not state.has_valid_position:
            return None
        return max(0, int(end) - int(state.position))

    def _pause_or_resume(self, open_past: Collection[TopicPartition]) -> None:
        paused = self.consumer.paused()
        if self.why_held is None:
            self.consumer.resume(*(each for each in open_past if each in paused))
        else:
            # What has been fetched of them is kept: only a poll of a paused partition drops it.
            self.consumer.pause(*(each for each in open_past if each not in paused))
