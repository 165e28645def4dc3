"""How much the embedded broker may still be sent before it would lose what nobody has read."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.kafka import KafkaConfig

__all__ = ["EmbeddedRoom"]

# librdkafka's mock broker drops the oldest beyond 5 MB or 100,000 events a partition, silently.
_MAX_UNREAD_BYTES = 3 * 1024 * 1024
_MAX_UNREAD_EVENTS = 60_000
_LOOK_AGAIN_S = 0.05


class EmbeddedRoom:
    """Tells a producer to wait while a partition holds too much that the group has not committed.

    With another broker it is never opened and there is always room.

    Args:
        group_id: the group that reads.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, group_id: str, num_partitions: int) -> None:
        self.group_id = group_id
        self._kafka = kafka
        self._partitions = [TopicPartition(topic, number) for number in range(num_partitions)]
        self._consumer: AIOKafkaConsumer | None = None
        self._ends = [0] * num_partitions
        self._committed = [0] * num_partitions
        self._events = 0
        self._bytes = 0

    async def open(self) -> None:
        """Learn where the group and the partitions are."""
        self._consumer = AIOKafkaConsumer(
            group_id=self.group_id, enable_auto_commit=False, **self._kafka.client_kwargs()
        )
        await self._consumer.start()
        # By hand: subscribing would make this a member that partitions are given to.
        self._consumer.assign(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        self._ends = [ends[partition] for partition in self._partitions]
        await self.look_again()

    async def close(self) -> None:
        """Let the connection go."""
        if self._consumer is not None:
            await self._consumer.stop()

    def sent(self, partition: int, end: int, events: int, value_bytes: int) -> None:
        """Note that ``events`` arrived and that the partition now ends at ``end``."""
        self._ends[partition] = max(self._ends[partition], end)
        self._events += events
        self._bytes += value_bytes

    def has_room(self) -> bool:
        """Whether another chunk may be sent now."""
        if self._consumer is None:
            return True
        mean_bytes = self._bytes / self._events if self._events else 0.0
        unread = max(end - read for end, read in zip(self._ends, self._committed, strict=True))
        return unread < _MAX_UNREAD_EVENTS and unread * mean_bytes < _MAX_UNREAD_BYTES

    async def look_again(self) -> None:
        """Ask what the group has committed, after a short wait."""
        if self._consumer is None:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
        for number, partition in enumerate(self._partitions):
            self._committed[number] = await self._consumer.committed(partition) or 0
