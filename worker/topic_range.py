"""What lies on a topic as it is now, or in a time of it: read once, without a group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from worker.errors import BrokerError
from worker.kafka import KafkaConfig
from worker.partition_counts import partition_counts

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]

__all__ = ["TopicRange"]

_POLL_MS = 500
# A broker that gives nothing for so long has gone.
_STALL_S = 60.0


class TopicRange:
    """Committed events of every partition, in the order of each, up to where it ends at the start.

    Args:
        since_ms, until_ms: only events with a timestamp from the one on and before the other,
            milliseconds since the epoch. What is later than ``until_ms`` is read all the same:
            timestamps need not be in order.

    Attributes:
        spans: first offset and the one after the last, by partition, once entered.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._consumer: AIOKafkaConsumer | None = None
        self._ends: dict[TopicPartition, int] = {}
        self.spans: dict[int, tuple[int, int]] = {}
        self._reached = 0
        self._moved_s = 0.0

    async def take(self, most: int) -> list[Record]:
        """The next events, at most so many; none at the end.

        Raises:
            BrokerError: Kafka failed, or gives nothing for a minute.
        """
        assert self._consumer is not None
        found: list[Record] = []
        try:
            while self._ends and not found:
                polled = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=most)
                found = [
                    record
                    for partition, records in polled.items()
                    for record in records
                    if record.offset < self._ends.get(partition, 0) and self._is_in_time(record)
                ]
                await self._retire()
        except KafkaError as error:
            raise BrokerError(f"reading topic {self._topic}: {error!r}") from error
        return found

    def _is_in_time(self, record: Record) -> bool:
        timestamp: int = record.timestamp
        return (self._since_ms is None or timestamp >= self._since_ms) and (
            self._until_ms is None or timestamp < self._until_ms
        )

    async def _retire(self) -> None:
        """Leave the partitions that are read to their end."""
        assert self._consumer is not None
        positions = {each: await self._consumer.position(each) for each in self._ends}
        reached = sum(positions.values())
        for partition, position in positions.items():
            if position >= self._ends[partition]:
                del self._ends[partition]
                self._consumer.pause(partition)
        now_s = time.monotonic()
        if len(self._ends) < len(positions) or reached != self._reached:
            self._moved_s = now_s
        elif now_s - self._moved_s > _STALL_S:
            raise BrokerError(f"topic {self._topic} gives nothing for {_STALL_S:g} s")
        self._reached = reached

    async def __aenter__(self) -> TopicRange:
        """Connect, and see where the topic ends now.

        Raises:
            BrokerError: no broker answers.
            ConfigError: there is no such topic.
        """
        count = (await partition_counts(self._kafka, [self._topic]))[self._topic]
        partitions = [TopicPartition(self._topic, number) for number in range(count)]
        self._consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            **self._kafka.client_kwargs(),
        )
        try:
            await self._consumer.start()
            self._consumer.assign(partitions)
            await self._seek(partitions)
        except KafkaError as error:
            await self._consumer.stop()
            raise BrokerError(f"reading topic {self._topic}: {error!r}") from error
        except BaseException:
            await self._consumer.stop()
            raise
        self._moved_s = time.monotonic()
        return self

    async def _seek(self, partitions: list[TopicPartition]) -> None:
        assert self._consumer is not None
        ends = await self._consumer.end_offsets(partitions)
        starts = await self._consumer.beginning_offsets(partitions)
        if self._since_ms is not None:
            found = await self._consumer.offsets_for_times(
                dict.fromkeys(partitions, self._since_ms)
            )
            starts = {
                each: ends[each] if found[each] is None else found[each].offset
                for each in partitions
            }
        self.spans = {
            each.partition: (min(starts[each], ends[each]), ends[each]) for each in partitions
        }
        for partition in partitions:
            if starts[partition] < ends[partition]:
                self._ends[partition] = ends[partition]
                self._consumer.seek(partition, starts[partition])
            else:
                self._consumer.seek(partition, ends[partition])
                self._consumer.pause(partition)

    async def __aexit__(self, *_: object) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
