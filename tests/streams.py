"""Writing inputs to a topic, remembering each, and waiting for a group to have read them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from tests.catalog import Event, products
from tests.polling import until, until_blocking
from worker.local.worker_process import WorkerProcess

# Partition and offset of an input event.
Place: TypeAlias = tuple[int, int]

# A worker that is loaded on purpose takes some thousands a second.
_CHUNK = 1_000
_BACKLOG = 5_000
_ADMIN_S = 30.0
# A group's coordinator is settled some moments after the group, or the broker, appears.
_COORDINATOR_MOVES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@dataclass
class Inputs:
    """What was written to an input topic, by place."""

    producer: AIOKafkaProducer
    topic: str
    events: dict[Place, Event] = field(default_factory=dict)

    async def send(self, events: Iterable[Event], partition: int | None = None) -> list[Place]:
        """Write events in order; returns the place of each once the broker has all."""
        sent: list[tuple[Event, asyncio.Future[object]]] = []
        for key, value in events:
            future = await self.producer.send(self.topic, value, key=key, partition=partition)
            sent.append(((key, value), future))
        places = []
        for event, future in sent:
            metadata = await future
            place = (metadata.partition, metadata.offset)  # type: ignore[attr-defined]
            self.events[place] = event
            places.append(place)
        return places

    def __len__(self) -> int:
        return len(self.events)


@dataclass(frozen=True)
class Group:
    """A consumer group's offsets in one topic, as the broker has them."""

    bootstrap_servers: str
    group_id: str
    topic: str

    def offsets(self) -> dict[int, tuple[int, int]]:
        """By partition: committed offset (0 where none) and end of the partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": self.group_id,
                "enable.auto.commit": False,
                # Else it waits for a moment without an open transaction, which may never come.
                "isolation.level": "read_uncommitted",
                "log_level": 3,
            }
        )
        try:
            numbers = consumer.list_topics(self.topic, timeout=_ADMIN_S).topics[self.topic]
            partitions = [TopicPartition(self.topic, number) for number in numbers.partitions]
            return {
                found.partition: (
                    max(0, found.offset),
                    consumer.get_watermark_offsets(found, timeout=_ADMIN_S)[1],
                )
                for found in _committed(consumer, partitions)
            }
        finally:
            consumer.close()

    async def caught_up(
        self, *workers: WorkerProcess, deadline_s: float = 90.0
    ) -> dict[int, tuple[int, int]]:
        """Wait until everything there is has been committed; returns the offsets.

        Args:
            workers: those that must go on meanwhile.

        Raises:
            AssertionError: not within ``deadline_s``, with the offsets; or a worker has ended.
        """
        found: dict[int, tuple[int, int]] = {}

        def why_not() -> str | None:
            ended = [worker.child.name for worker in workers if worker.child.poll() is not None]
            assert not ended, f"{ended} ended by itself"
            found.update(self.offsets())
            behind = {p: pair for p, pair in found.items() if pair[0] != pair[1]}
            return f"committed and end by partition: {behind}" if behind else None

        await until(why_not, deadline_s, f"{self.group_id} at the end of {self.topic}")
        return found


class Feeder:
    """Writes products until the block ends; the group always has some, never too many, to do.

    Leave the block, and every product that the broker has is in ``inputs``.

    Args:
        backlog: most products that wait, in about.
    """

    def __init__(self, inputs: Inputs, group: Group, backlog: int = _BACKLOG) -> None:
        self._inputs = inputs
        self._group = group
        self._backlog = backlog
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def _feed(self) -> None:
        while not self._enough.is_set():
            try:
                offsets = await asyncio.to_thread(self._group.offsets)
            except KafkaException:  # the broker is away, or just back
                continue
            if sum(end - committed for committed, end in offsets.values()) < self._backlog:
                await self._inputs.send(products(_CHUNK, start=len(self._inputs)))

    async def __aenter__(self) -> Feeder:
        self._task = asyncio.create_task(self._feed())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._enough.set()
        await self._task


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    found: list[TopicPartition] = []

    def why_not() -> str | None:
        try:
            found[:] = consumer.committed(partitions, timeout=_ADMIN_S)
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_MOVES:
                raise
            return str(error.args[0])
        return None

    until_blocking(why_not, _ADMIN_S, "committed offsets")
    return found


def metric(worker: WorkerProcess, name: str, **labels: str) -> float:
    """The value of one of a worker's metrics; 0 where it was never counted.

    Raises:
        LocalServiceError: the worker does not answer.
    """
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in worker.metrics().splitlines():
        series, _, value = line.rpartition(" ")
        base, _, rest = series.partition("{")
        if base == f"sortiment_{name}" and wanted <= set(rest.rstrip("}").split(",")):
            return float(value)
    return 0.0


def lacks_results(worker: WorkerProcess, num: float) -> str | None:
    """None once a worker has delivered ``num`` results; for ``until``."""
    done = metric(worker, "results_total")
    return None if done >= num else f"{done:g} results of {num:g}"


def make_topic(
    bootstrap_servers: str, topic: str, partitions: int, config: Mapping[str, str] | None = None
) -> None:
    """A topic of this name, before the worker makes it its own way."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 3})
    new = NewTopic(topic, partitions, replication_factor=1, config=dict(config or {}))
    admin.create_topics([new], operation_timeout=_ADMIN_S)[topic].result(_ADMIN_S)


def alter_topic(bootstrap_servers: str, topic: str, config: Mapping[str, str]) -> None:
    """Change settings of a topic that is there."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 3})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(_ADMIN_S)
