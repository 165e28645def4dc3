"""Sends events to the input topic, batch at a time, at a rate or as fast as Kafka takes them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from worker.embedded_room import EmbeddedRoom
from worker.errors import BrokerError, ConfigError, SortimentError
from worker.kafka import KafkaConfig
from worker.partitioner import hash_keys
from worker.product_lines import ProductEvent

if TYPE_CHECKING:
    from aiokafka.producer.message_accumulator import BatchBuilder

__all__ = ["Compression", "ReplayConfig", "Replayed", "SentBatch", "replay"]

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

_CHUNK = 2_000
# Below the broker's usual limit of 1 MiB a batch, and large enough to compress well.
_BATCH_BYTES = 128 * 1024
_MAX_PENDING_BATCHES = 64
# At a rate, events that fall due within one tick go out together.
_TICK_S = 0.005
_PROGRESS_S = 0.25
_CLOSE_S = 5.0
# A broker of KRaft learns of a topic from the controller, some tens of milliseconds later.
_NEW_TOPIC_S = 1.0
_TOPIC_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig:
    """How events are sent.

    Attributes:
        rate_per_s: events a second; None: as fast as Kafka takes them.
        group_id: the group whose reading the embedded broker must be paced to.
    """

    topic: str
    rate_per_s: float | None = None
    compression: Compression = "lz4"
    group_id: str = "sortiment"

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and not 0 < self.rate_per_s < 1e7:
            raise ValueError(f"rate_per_s must be positive, got {self.rate_per_s}")


class SentBatch(NamedTuple):
    """Events that arrived together: their places in the input topic, and when they were sent."""

    partition: int
    first_offset: int
    events: int
    timestamp_ms: int


@dataclass(slots=True)
class Replayed:
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


async def replay(
    kafka: KafkaConfig,
    config: ReplayConfig,
    events: Iterable[ProductEvent],
    on_progress: Callable[[Replayed], None] = lambda _: None,
    on_sent: Callable[[SentBatch], None] = lambda _: None,
) -> Replayed:
    """Send all events; each gets the time of its sending as its timestamp (CreateTime).

    A key goes to the partition that Kafka's default partitioner chooses, in the given order. When
    cancelled, what was taken is still sent, within five seconds.

    Args:
        on_progress: called about four times a second and at the end.
        on_sent: called with each batch that Kafka has acknowledged.

    Raises:
        BrokerError: no broker answers, or it refuses events.
        ConfigError: the topic is missing.
    """
    async with _producer(kafka, config) as producer:
        num_partitions = len(await producer.partitions_for(config.topic))
        room = EmbeddedRoom(kafka, config.topic, config.group_id, num_partitions)
        sending = _Sending(producer, config.topic, num_partitions, room, on_progress, on_sent)
        try:
            if kafka.broker == "embedded":
                await room.open()
            for chunk in _chunks(events, config.rate_per_s, sending):
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
        finally:
            await room.close()
            sending.report(last=True)
    return sending.replayed


@asynccontextmanager
async def _producer(kafka: KafkaConfig, config: ReplayConfig) -> AsyncIterator[AIOKafkaProducer]:
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
            is_present = kafka.broker == "embedded" or await _is_present(producer, config.topic)
        except KafkaError as error:
            raise BrokerError(
                f"no broker answers at {kafka.bootstrap_servers} ({error!r}); start one, or set "
                "KAFKA_BOOTSTRAP_SERVERS to where it is"
            ) from error
        if not is_present:
            raise ConfigError(
                [
                    f"topic {config.topic} is missing at {kafka.bootstrap_servers}: "
                    "`sortiment-worker topics create` or a worker's start creates it"
                ]
            )
        yield producer
    finally:
        # Cancelled or failed: a broker that is gone must not keep the process.
        try:
            await asyncio.wait_for(producer.stop(), _CLOSE_S)
        except (TimeoutError, KafkaError):
            await producer.client.close()


async def _is_present(producer: AIOKafkaProducer, topic: str) -> bool:
    """Whether the topic is there; a new one may take a moment to be seen."""
    deadline_s = time.monotonic() + _NEW_TOPIC_S
    # Asking for one topic by name makes many brokers create it: look at all of them.
    while topic not in (await producer.client.fetch_all_metadata()).topics():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(_TOPIC_POLL_S)
    return True


def _chunks(
    events: Iterable[ProductEvent], rate_per_s: float | None, sending: _Sending
) -> Iterator[Sequence[ProductEvent]]:
    """What is due, again and again; empty where nothing is due yet."""
    source = iter(events)
    taken = 0
    while True:
        due = _CHUNK
        if rate_per_s is not None:
            due = min(_CHUNK, int(sending.elapsed_s * rate_per_s) + 1 - taken)
            if due <= 0:
                yield ()
                continue
        chunk: list[ProductEvent] = []
        try:
            chunk.extend(islice(source, due))
        except SortimentError:
            yield chunk  # what was read before the bad line is sent before the error is raised
            raise
        if not chunk:
            return
        taken += len(chunk)
        yield chunk


class _Sending:
    """Batches on their way, and the count of those that arrived."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        num_partitions: int,
        room: EmbeddedRoom,
        on_progress: Callable[[Replayed], None],
        on_sent: Callable[[SentBatch], None],
    ) -> None:
        self.replayed = Replayed()
        self._producer = producer
        self._topic = topic
        self._num_partitions = num_partitions
        self._room = room
        self._on_progress = on_progress
        self._on_sent = on_sent
        self._pending: deque[_Pending] = deque()
        self._started_s = time.monotonic()
        self._reported_s = self._started_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    async def send(self, chunk: Sequence[ProductEvent]) -> None:
        by_partition: defaultdict[int, list[ProductEvent]] = defaultdict(list)
        hashes = hash_keys([event.key or b"%d" % n for n, event in enumerate(chunk)])
        for event, key_hash in zip(chunk, hashes, strict=True):
            by_partition[key_hash % self._num_partitions].append(event)
        while not self._room.has_room():
            self.replayed.waiting = f"for group {self._room.group_id} to read on"
            self.report()
            await self.settle()
            await self._room.look_again()
        self.replayed.waiting = ""
        await asyncio.gather(*(self._send_to(p, part) for p, part in by_partition.items()))
        while len(self._pending) > _MAX_PENDING_BATCHES:
            await self._settle_one()
        while self._pending and self._pending[0].sent.done():
            await self._settle_one()
        self.report()

    async def settle(self) -> None:
        """Wait until everything sent is acknowledged."""
        while self._pending:
            await self._settle_one()

    def report(self, *, last: bool = False) -> None:
        now_s = time.monotonic()
        self.replayed.seconds = now_s - self._started_s
        if last or now_s - self._reported_s >= _PROGRESS_S:
            self._reported_s = now_s
            self._on_progress(self.replayed)

    async def _send_to(self, partition: int, events: list[ProductEvent]) -> None:
        timestamp = int(time.time() * 1000)
        builder: BatchBuilder = self._producer.create_batch()
        value_bytes = 0
        for key, value in events:
            if builder.append(timestamp=timestamp, key=key, value=value) is None:
                await self._submit(builder, partition, value_bytes, timestamp)
                builder, value_bytes = self._producer.create_batch(), 0
                builder.append(timestamp=timestamp, key=key, value=value)
            value_bytes += len(value)
        await self._submit(builder, partition, value_bytes, timestamp)

    async def _submit(
        self, builder: BatchBuilder, partition: int, value_bytes: int, timestamp_ms: int
    ) -> None:
        # Closed: else the producer would add to it what other calls send.
        builder.close()
        events = builder.record_count()
        sent = await self._producer.send_batch(builder, self._topic, partition=partition)
        self._pending.append(_Pending(sent, events, value_bytes, timestamp_ms))

    async def _settle_one(self) -> None:
        pending = self._pending.popleft()
        metadata = await pending.sent
        self.replayed.events += pending.events
        self.replayed.value_bytes += pending.value_bytes
        partition, offset, events = metadata.partition, metadata.offset, pending.events
        self._room.sent(partition, offset + events, events, pending.value_bytes)
        self._on_sent(SentBatch(partition, offset, events, pending.timestamp_ms))


@dataclass(slots=True)
class _Pending:
    sent: asyncio.Future  # type: ignore[type-arg]
    events: int
    value_bytes: int
    timestamp_ms: int
