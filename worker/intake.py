"""Takes events from Kafka: joins the group, polls windows, waits while too much is in hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from worker.assignment import Assignment
from worker.attempts import Attempts
from worker.delivery import Delivery
from worker.errors import BrokerError
from worker.events import Window
from worker.group_offsets import committed_offset
from worker.kafka import KafkaConfig
from worker.lanes import Lane, Run, event_bytes
from worker.metrics import Metrics
from worker.priorities import Priorities, Turn
from worker.room import Room

__all__ = ["Intake", "IntakeConfig"]

_log = logging.getLogger(__name__)

# aiokafka's default.
_FETCH_WAIT_MS = 500
_SHARED_WAIT_MS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeConfig:
    """What is read, as which member of which group, and how much at a time.

    Attributes:
        topic: the input topic.
        backfill_topic: past products, read only while no live one waits; None: there are none.
        backfill_poll_records: largest window with past products in it.
        group_id: the consumer group of all workers.
        group_instance_id: name of this worker for static membership, or None.
        session_timeout_ms, heartbeat_interval_ms, max_poll_interval_ms: as Kafka defines them.
        max_wait_ms: how long the first event of a window waits for more.
        max_poll_records: largest window.
        max_in_flight_products: events taken and not yet settled; polling waits beyond it.
        max_in_flight_bytes: the same for the size of their keys and values.
        max_event_bytes: largest event of the input topic.
        detect_loss: a gap in the offsets is an error: for the embedded broker, which drops the
            oldest events of a full partition silently and writes no transactions.
    """

    topic: str = "products"
    backfill_topic: str | None = None
    backfill_poll_records: int = 256
    group_id: str = "sortiment"
    group_instance_id: str | None = None
    session_timeout_ms: int = 30_000
    heartbeat_interval_ms: int = 3_000
    max_poll_interval_ms: int = 300_000
    max_wait_ms: int = 20
    max_poll_records: int = 2_000
    max_in_flight_products: int = 8_192
    max_in_flight_bytes: int = 256 * 1024 * 1024
    max_event_bytes: int = 1_048_576
    detect_loss: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_poll_records",
            "backfill_poll_records",
            "max_in_flight_products",
            "max_in_flight_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_wait_ms < 0:
            raise ValueError(f"max_wait_ms must not be negative, got {self.max_wait_ms}")


class Intake:
    """The consumer, and windows of what it reads for open lanes."""

    def __init__(
        self,
        config: IntakeConfig,
        kafka: KafkaConfig,
        delivery: Delivery,
        attempts: Attempts,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._kafka = kafka
        self._room = Room(config.max_in_flight_products, config.max_in_flight_bytes)
        self._priorities = Priorities(
            config.topic, config.backfill_topic, config.backfill_poll_records, self._room, metrics
        )
        self._assignment = Assignment(delivery, attempts, self._room, self._priorities, metrics)
        self._consumer: AIOKafkaConsumer | None = None
        self._is_polling = False
        self._polled_s = 0.0
        self.lags: dict[TopicPartition, int] = {}

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The started consumer."""
        assert self._consumer is not None
        return self._consumer

    @property
    def lanes(self) -> dict[TopicPartition, Lane]:
        """Open lanes."""
        return self._assignment.lanes

    @property
    def has_deaths(self) -> bool:
        """Whether a worker died with something in hand that is not through yet."""
        return any(lane.deaths for lane in self.lanes.values())

    @property
    def is_assigned(self) -> bool:
        """Whether every assigned partition is open. A spare member without partitions is too."""
        return self._assignment.is_open

    @property
    def in_flight(self) -> int:
        """Events taken and not yet settled."""
        return self._room.num_products

    @property
    def backfill(self) -> dict[str, Any] | None:
        """How the backfill is, as JSON takes it; None where there is none."""
        return self._priorities.status()

    async def start(self) -> None:
        """Join the group. May be called again where it fails.

        Raises:
            KafkaError: no broker takes it.
        """
        config = self._config
        consumer = AIOKafkaConsumer(
            **self._kafka.client_kwargs(),
            client_id="sortiment-worker",
            group_id=config.group_id,
            group_instance_id=config.group_instance_id,
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            max_poll_interval_ms=config.max_poll_interval_ms,
            # A rebalance waits no longer for a member than its session lasts.
            rebalance_timeout_ms=config.session_timeout_ms,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=max(1_048_576, config.max_event_bytes + 4_096),
            # While a fetch waits for live events, its broker is not asked for past ones.
            fetch_max_wait_ms=_FETCH_WAIT_MS if config.backfill_topic is None else _SHARED_WAIT_MS,
        )
        consumer.subscribe(self._priorities.topics, listener=self._assignment)
        self._consumer = self._assignment.consumer = self._priorities.consumer = consumer
        try:
            await consumer.start()
        except KafkaError:
            self._consumer = None
            await consumer.stop()
            raise

    def close(self) -> None:
        """Open no more lanes: the end is near."""
        self._assignment.close()

    async def stop(self) -> None:
        """Leave the group."""
        await self._assignment.stop()
        if self._consumer is not None:
            try:
                await self._consumer.stop()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # With the broker away aiokafka lets the end of its own fetching task out.
                _log.debug("the consumer stopped in the middle of a fetch")

    async def next_window(self, most: int | None = None) -> Window:
        """The next events, as many as come within ``max_wait_ms``; waits while there is no room.

        Args:
            most: fewer than ``max_poll_records``, where given.
        """
        most = min(most or self._config.max_poll_records, self._config.max_poll_records)
        while True:
            self._check_alive()
            await self._room.wait()
            window = Window([], [], [], time.monotonic())
            turn = self._priorities.next_turn(self.lanes.keys(), most)
            await self._poll_into(window, turn)
            if not window.records:
                continue
            deadline_s = window.polled_s + self._config.max_wait_ms / 1000
            while len(window) < turn.most and self._room.is_left:
                remaining_ms = int((deadline_s - time.monotonic()) * 1000)
                if remaining_ms <= 0 or not await self._poll_into(
                    window, replace(turn, timeout_ms=remaining_ms)
                ):
                    break
            self._metrics.events.inc(len(window))
            self._metrics.in_flight.set(self._room.num_products)
            self._metrics.stage_seconds.labels("wait").observe(time.monotonic() - window.polled_s)
            return window

    def _check_alive(self) -> None:
        if self._assignment.failure is not None:
            raise self._assignment.failure
        # aiokafka never looks at it: with its fetcher dead, polls would find nothing for ever.
        died = self.consumer._fetcher.error_future  # noqa: SLF001
        if died.done():
            raise BrokerError(f"fetching has ended: {died.exception()!r}") from died.exception()

    async def _poll_into(self, window: Window, turn: Turn) -> int:
        self._is_polling = True
        try:
            polled = await self.consumer.getmany(
                *turn.partitions,
                timeout_ms=turn.timeout_ms,
                max_records=turn.most - len(window),
            )
        except CorruptRecordException as error:
            # Brokers check what they take, so no seller did this; skipping it would lose events.
            raise BrokerError(
                f"{error}; a broker's disk or the way from it is damaged: let another replica "
                "lead the partition, or set the group's offset beyond the batch in the log above"
            ) from error
        finally:
            self._is_polling = False
            self._polled_s = time.monotonic()
        if not window.records:
            window.polled_s = time.monotonic()
        taken = 0
        for partition, records in polled.items():
            lane = self.lanes.get(partition)
            if lane is None or not lane.is_open:
                # Taken before the lane was open: the lane's task seeks, so they come again.
                self._metrics.discarded.inc(len(records))
                continue
            if self._config.detect_loss:
                _check_gap(lane, records)
            first = lane.admit(len(records))
            window.records.extend(records)
            window.lanes.extend([lane] * len(records))
            window.slots.extend(range(first, first + len(records)))
            taken += len(records)
            self._room.take(lane, len(records), sum(map(event_bytes, records)))
        return taken

    async def stay_member(self) -> None:
        """Tell the group, while a window is long in work, that its worker is not dead.

        Runs for ever beside the polls: a poll of nothing wherever the last one lies too far back.
        """
        interval_s = self._config.max_poll_interval_ms / 3000
        while True:
            await asyncio.sleep(interval_s)
            if self._is_polling or time.monotonic() - self._polled_s < interval_s:
                continue
            partitions = self.consumer.assignment()
            self.consumer.pause(*partitions)
            await self.consumer.getmany(timeout_ms=0)
            held = self.consumer.assignment()
            self.consumer.resume(
                *(each for each in held if each in self.lanes and self._priorities.may_fetch(each))
            )

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets as a member of the group, in its present generation.

        Raises:
            CommitFailedError: the group has gone on without this member.
            KafkaError: the broker did not take them.
        """
        await self.consumer.commit(
            {partition: OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
        )

    async def committed(self, partition: TopicPartition) -> int | None:
        """The group's offset as the broker has it now; waits for a broker that is away."""
        return await committed_offset(self.consumer, partition)

    def settled(self, run: Run) -> None:
        """A run is with the broker: there is room for as many events."""
        self._room.give(run)

    def lost(self, lane: Lane, after_s: float) -> None:
        """A lane that could not deliver: its partition is opened anew, after so many seconds."""
        self._assignment.lost(lane, after_s)

    async def measure_lag(self) -> None:
        """Count the events between what each open lane has delivered and its partition's end."""
        lags = {}
        ends = await self._priorities.ends_of_held(list(self.lanes))
        for partition, lane in list(self.lanes.items()):
            # Revoked while others were asked: aiokafka's answer would be a failed assertion.
            if partition not in self.consumer.assignment():
                continue
            end = ends.get(partition) or self.consumer.highwater(partition)
            if end is None or lane.delivered is None or not lane.is_open:
                continue
            # What lies at the end may be a transaction's marker: read over, never delivered.
            reached = lane.delivered if lane.in_hand else await self._position(partition)
            lags[partition] = max(0, end - max(reached, lane.delivered))
        self.lags = lags
        # Of partitions that have gone; until here what was measured before stands.
        self._metrics.lag.clear()
        for partition, lag in lags.items():
            self._metrics.lag.labels(partition.topic, partition.partition).set(lag)

    async def _position(self, partition: TopicPartition) -> int:
        try:
            position: int = await self.consumer.position(partition)
        except IllegalStateError:
            return 0  # revoked meanwhile
        return position


def _check_gap(lane: Lane, records: list[Any]) -> None:
    if records[0].offset != lane.next_offset:
        topic, number = lane.partition.topic, lane.partition.partition
        raise BrokerError(
            f"{topic}[{number}]: offsets {lane.next_offset} to {records[0].offset - 1} vanished "
            "before they were read: the embedded broker drops the oldest events of a partition "
            "beyond 5 MB; produce slower, or use a real broker"
        )
    lane.next_offset = records[-1].offset + 1
