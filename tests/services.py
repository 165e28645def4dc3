"""What integration tests do with Kafka: topics of their own, and reading them whole."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests import polling

Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]
Until: TypeAlias = int | Callable[[Sequence[Record]], bool] | None

_ADMIN_S = 30.0
_MAX_FETCH_BYTES = 8 * 1024 * 1024


def _wait_known(admin: AdminClient, topic: str, partitions: int) -> None:
    """Until the broker tells of the topic with all leaders: it may lag behind its controller."""

    def why_not() -> str | None:
        found = admin.list_topics(topic, timeout=_ADMIN_S).topics[topic]
        leaders = [each.leader for each in found.partitions.values()]
        if found.error is None and len(leaders) == partitions and min(leaders) >= 0:
            return None
        return f"{found.error}, leaders {leaders}"

    polling.until_blocking(why_not, _ADMIN_S, f"topic {topic} known")


@dataclass
class Topics:
    """Makes topics that no other test has; removes them at the end."""

    bootstrap_servers: str
    made: list[str] = field(default_factory=list)

    def __call__(
        self, name: str = "topic", *, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        """A new topic's name: ``name`` and a unique end."""
        topic = self.name(name)
        admin = _admin(self.bootstrap_servers)
        new = NewTopic(topic, partitions, replication_factor=1, config=dict(config or {}))
        admin.create_topics([new], operation_timeout=_ADMIN_S)[topic].result(_ADMIN_S)
        _wait_known(admin, topic, partitions)
        return topic

    def name(self, name: str) -> str:
        """A name for a topic that somebody else (the worker) makes; removed all the same."""
        topic = f"{name}-{uuid.uuid4().hex[:12]}"
        self.made.append(topic)
        return topic

    def remove(self) -> None:
        """Remove those that exist."""
        admin = _admin(self.bootstrap_servers)
        present = [
            topic for topic in self.made if topic in admin.list_topics(timeout=_ADMIN_S).topics
        ]
        if present:
            for removed in admin.delete_topics(present, operation_timeout=_ADMIN_S).values():
                removed.result(_ADMIN_S)


@dataclass(frozen=True)
class WorkerTopics:
    """Names of one worker's topics, by the names of its settings."""

    input_topic: str
    categories_topic: str
    attributes_topic: str
    dead_letters_topic: str
    control_topic: str

    @classmethod
    def unique(cls, topics: Topics) -> WorkerTopics:
        """Names that no other test uses; the worker makes the topics."""
        return cls(
            *(topics.name(name) for name in ("in", "categories", "attributes", "dead", "control"))
        )


@dataclass(frozen=True)
class TopicReader:
    """Reads topics from their beginning, without a group, in partition and offset order."""

    bootstrap_servers: str

    async def __call__(
        self,
        topic: str,
        until: Until = None,
        *,
        deadline_s: float = 60.0,
        read_committed: bool = False,
    ) -> list[Record]:
        """Events of ``topic`` until so many are there, or until ``until`` of them is true.

        None: those that are there now. More than asked for may come back: a test for duplicates
        wants to see them.

        Raises:
            AssertionError: not within ``deadline_s``; says how many there were.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            max_partition_fetch_bytes=_MAX_FETCH_BYTES,
        )
        records: list[Record] = []
        await consumer.start()
        try:
            async with asyncio.timeout(deadline_s):
                partitions = await self._partitions(topic, deadline_s)
                await _collect(consumer, partitions, until, records)
        except TimeoutError:
            raise AssertionError(
                f"{len(records)} events on {topic} after {deadline_s:g} s, wanted: {until}"
            ) from None
        finally:
            await consumer.stop()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    async def _partitions(self, topic: str, deadline_s: float) -> list[TopicPartition]:
        """Of a topic that the worker, another process, may still have to make."""
        admin = _admin(self.bootstrap_servers)
        found: list[TopicPartition] = []

        def why_not() -> str | None:
            known = admin.list_topics(timeout=_ADMIN_S).topics
            if topic in known:
                found.extend(TopicPartition(topic, n) for n in sorted(known[topic].partitions))
            return None if found else "it is not there"

        await polling.until(why_not, deadline_s, f"topic {topic}")
        return found


async def _collect(
    consumer: AIOKafkaConsumer,
    partitions: list[TopicPartition],
    until: Until,
    records: list[Record],
) -> None:
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)

    def is_done() -> bool:
        if until is None:
            return all(positions[p] >= ends[p] for p in partitions)
        return len(records) >= until if isinstance(until, int) else until(records)

    positions = {p: await consumer.position(p) for p in partitions}
    while not is_done():
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            records.extend(batch)
        positions = {p: await consumer.position(p) for p in partitions}


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 3})
