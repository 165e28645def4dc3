"""Sends events, batch at a time, at a rate or as fast as Kafka takes them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from worker.embedded_room import EmbeddedRoom
from worker.errors import BrokerError, SortimentError
from worker.event_sources import OutEvent, Source
from worker.kafka import KafkaConfig
from worker.partition_counts import no_broker, partition_counts
from worker.partitioner import hash_keys

if TYPE_CHECKING:
    from aiokafka.producer.message_accumulator import BatchBuilder
    from aiokafka.structs import RecordMetadata

__all__ = ["Compression", "PaceConfig", "Sent", "SentBatch", "chunks", "hashes_of", "send_paced"]

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

_CHUNK = 2_000
# Below the broker's usual limit of 1 MiB a batch, and large enough to compress well.
_BATCH_BYTES = 128 * 1024
_MAX_PENDING_BATCHES = 64
# At a rate, events that fall due within one tick go out together.
_TICK_S = 0.005
_PROGRESS_S = 0.25
_CLOSE_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceConfig:
    """How events are sent.

    Attributes:
        topic: where events go that do not say where.
        others: further topics that events may name.
        rate_per_s: events a second; None: as fast as Kafka takes them.
        group_id: the group whose reading the embedded broker must be paced to.
    """

    topic: str
    others: tuple[str, ...] = ()
    rate_per_s: float | None = None
    compression: Compression = "lz4"
    group_id: str = "sortiment"

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and not 0 < self.rate_per_s < 1e7:
            raise ValueError(f"rate_per_s must be positive, got {self.rate_per_s}")


class SentBatch(NamedTuple):
    """Events that arrived together: their places in their topic, and when they were sent."""

    topic: str
    partition: int
    first_offset: int
    events: int
    timestamp_ms: int


@dataclass(slots=True)
class Sent:
    """What was sent so far.

    Attributes:
        events: acknowledged by Kafka.
        value_bytes: of their values, before compression.
        seconds: since the first was taken.
        waiting: why nothing is being sent now, if so.
    """

    events: int = 0
    value_bytes: int = 0
    seconds: float = 0.0
    waiting: str = ""

    @property
    def events_per_s(self) -> float:
        """The mean rate so far."""
        return self.events / self.seconds if self.seconds else 0.0


async def send_paced(
    kafka: KafkaConfig,
    config: PaceConfig,
    source: Source,
    on_progress: Callable[[Sent], None] = lambda _: None,
    on_sent: Callable[[SentBatch], None] = lambda _: None,
) -> Sent:
    """Send all events; each gets the time of its sending as its timestamp (CreateTime).

    A key goes to the partition that Kafka's default partitioner chooses, in the given order. When
    cancelled, what is with the producer is still sent, within five seconds, and counted.

    Args:
        on_progress: called about four times a second and at the end.
        on_sent: called with each batch that Kafka has acknowledged.

    Raises:
        BrokerError: no broker answers, or it refuses events.
        ConfigError: a topic is missing.
    """
    counts = await partition_counts(kafka, (config.topic, *config.others))
    async with _producer(kafka, config) as producer:
        room = EmbeddedRoom(kafka, config.topic, config.group_id, counts[config.topic])
        sending = _Sending(producer, config.topic, counts, room, on_progress, on_sent)
        try:
            if kafka.broker == "embedded":
                await room.open()
            async for chunk in chunks(source, config.rate_per_s, sending.clock):
                if chunk:
                    await sending.send(chunk)
                else:
                    sending.report()
                    await asyncio.sleep(_TICK_S)
            await sending.settle()
        except KafkaError as error:
            raise BrokerError(
                f"sending to topic {config.topic} at {kafka.bootstrap_servers}: {error!r}"
            ) from error
        except (asyncio.CancelledError, SortimentError):
            # Stopped, or the source has failed: what is with the producer goes out all the same.
            with suppress(TimeoutError, KafkaError):
                async with asyncio.timeout(_CLOSE_S):
                    await sending.settle()
            raise
        finally:
            await room.close()
            sending.report(last=True)
    return sending.sent


@asynccontextmanager
async def _producer(kafka: KafkaConfig, config: PaceConfig) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        compression_type=None if config.compression == "none" else config.compression,
        max_batch_size=_BATCH_BYTES,
        **kafka.client_kwargs(),
    )
    try:
        try:
            await producer.start()
        except KafkaError as error:
            raise no_broker(kafka, error) from error
        yield producer
    finally:
        # Cancelled or failed: a broker that is gone must not keep the process.
        try:
            await asyncio.wait_for(producer.stop(), _CLOSE_S)
        except (TimeoutError, KafkaError):
            await producer.client.close()


async def chunks(
    source: Source,
    rate_per_s: float | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Sequence[OutEvent]]:
    """What is due, again and again; empty where nothing is due yet.

    Args:
        clock: seconds since the first was due.
    """
    taken = 0
    while True:
        due = _CHUNK
        if rate_per_s is not None:
            due = min(_CHUNK, int(clock() * rate_per_s) + 1 - taken)
            if due <= 0:
                yield ()
                continue
        chunk = await source.take(due)
        if not chunk:
            return
        taken += len(chunk)
        yield chunk


def hashes_of(chunk: Sequence[OutEvent]) -> Sequence[int]:
    """Of the keys; modulo a topic's partitions they say where an event goes."""
    return hash_keys([b"%d" % n if e.key is None else e.key for n, e in enumerate(chunk)])


class _Sending:
    """Batches on their way, and the count of those that arrived."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        num_partitions: Mapping[str, int],
        room: EmbeddedRoom,
        on_progress: Callable[[Sent], None],
        on_sent: Callable[[SentBatch], None],
    ) -> None:
        self.sent = Sent()
        self._producer = producer
        self._topic = topic
        self._num_partitions = num_partitions
        self._room = room
        self._on_progress = on_progress
        self._on_sent = on_sent
        self._pending: deque[_Pending] = deque()
        self._started_s = time.monotonic()
        self._reported_s = self._started_s

    def clock(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    async def send(self, chunk: Sequence[OutEvent]) -> None:
        by_partition: defaultdict[tuple[str, int], list[OutEvent]] = defaultdict(list)
        for event, key_hash in zip(chunk, hashes_of(chunk), strict=True):
            topic = event.topic or self._topic
            by_partition[topic, key_hash % self._num_partitions[topic]].append(event)
        while not self._room.has_room():
            self.sent.waiting = f"for group {self._room.group_id} to read on"
            self.report()
            await self.settle()
            await self._room.look_again()
        self.sent.waiting = ""
        await asyncio.gather(*(self._send_to(*place, part) for place, part in by_partition.items()))
        while len(self._pending) > _MAX_PENDING_BATCHES:
            await self._settle_one()
        while self._pending and self._pending[0].is_done:
            await self._settle_one()
        self.report()

    async def settle(self) -> None:
        """Wait until everything sent is acknowledged."""
        while self._pending:
            await self._settle_one()

    def report(self, *, last: bool = False) -> None:
        now_s = time.monotonic()
        self.sent.seconds = now_s - self._started_s
        if last or now_s - self._reported_s >= _PROGRESS_S:
            self._reported_s = now_s
            self._on_progress(self.sent)

    async def _send_to(self, topic: str, partition: int, events: list[OutEvent]) -> None:
        batch = _Pending(topic, partition, int(time.time() * 1000))
        builder: BatchBuilder = self._producer.create_batch()
        for event in events:
            if not _append(builder, batch, event):
                await self._submit(builder, batch)
                builder = self._producer.create_batch()
                batch = _Pending(topic, partition, batch.timestamp_ms)
                _append(builder, batch, event)
        await self._submit(builder, batch)

    async def _submit(self, builder: BatchBuilder, batch: _Pending) -> None:
        # Closed: else the producer would add to it what other calls send.
        builder.close()
        batch.sent = await self._producer.send_batch(
            builder, batch.topic, partition=batch.partition
        )
        self._pending.append(batch)

    async def _settle_one(self) -> None:
        # Not taken out before: whoever is cancelled here must be able to wait for it again.
        batch = self._pending[0]
        assert batch.sent is not None
        offset = (await asyncio.shield(batch.sent)).offset
        self._pending.popleft()
        self.sent.events += batch.events
        self.sent.value_bytes += batch.value_bytes
        if batch.topic == self._topic:
            self._room.sent(batch.partition, offset + batch.events, batch.events, batch.value_bytes)
        self._on_sent(
            SentBatch(batch.topic, batch.partition, offset, batch.events, batch.timestamp_ms)
        )


@dataclass(slots=True)
class _Pending:
    topic: str
    partition: int
    timestamp_ms: int
    events: int = 0
    value_bytes: int = 0
    sent: asyncio.Future[RecordMetadata] | None = None

    @property
    def is_done(self) -> bool:
        return self.sent is not None and self.sent.done()


def _append(builder: BatchBuilder, batch: _Pending, event: OutEvent) -> bool:
    """Whether there was room for it: an empty batch takes any."""
    key, value, headers, _ = event
    if (
        builder.append(timestamp=batch.timestamp_ms, key=key, value=value, headers=list(headers))
        is None
    ):
        return False
    batch.events += 1
    batch.value_bytes += len(value or b"")
    return True
