"""Takes events from Kafka: polls windows, waits while too much is in hand, opens and closes lanes.

Rebalance callbacks are short: assignment only pauses and starts a task per partition, since
aiokafka goes on delivering while a callback runs; revocation closes the lanes and lets delivery
commit what is already with the broker, within a bound. A lane that delivery loses is opened anew in
the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError
from aiokafka.structs import OffsetAndMetadata

from worker.attempts import Attempts
from worker.delivery import Delivery
from worker.errors import BrokerError
from worker.events import Window
from worker.group_offsets import committed_offset
from worker.kafka import KafkaConfig
from worker.lanes import Lane, Run, event_bytes
from worker.metrics import Metrics

__all__ = ["Intake", "IntakeConfig"]

_log = logging.getLogger(__name__)

# A revocation must end well before the group's rebalance time-out, or the member is thrown out.
_REVOKE_TIMEOUT_S = 5.0
_RETRY_S = 0.5
# A frozen broker was seen to answer from old memory for less than a second.
_STALE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeConfig:
    """What is read, as which member of which group, and how much at a time.

    Attributes:
        topic: the input topic.
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
        if self.max_poll_records < 1:
            raise ValueError(f"max_poll_records must be at least 1, got {self.max_poll_records}")
        for name in ("max_in_flight_products", "max_in_flight_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_wait_ms < 0:
            raise ValueError(f"max_wait_ms must not be negative, got {self.max_wait_ms}")


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]
    """The consumer and its lanes."""

    def __init__(
        self,
        config: IntakeConfig,
        kafka: KafkaConfig,
        delivery: Delivery,
        attempts: Attempts,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._attempts = attempts
        self._delivery = delivery
        self._metrics = metrics
        self._kafka = kafka
        self._consumer: AIOKafkaConsumer | None = None
        self._lanes: dict[TopicPartition, Lane] = {}
        self._opening: dict[TopicPartition, tuple[Lane, asyncio.Task[None]]] = {}
        self._next_offset: dict[TopicPartition, int] = {}
        self._start_offset: dict[TopicPartition, int] = {}
        self._seen_committed: dict[TopicPartition, int] = {}
        self._epoch = 0
        self._is_member = False
        self._is_stopping = False
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._is_polling = False
        self._polled_s = 0.0
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self.lags: dict[TopicPartition, int] = {}

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The started consumer."""
        assert self._consumer is not None
        return self._consumer

    @property
    def lanes(self) -> dict[TopicPartition, Lane]:
        """Open lanes."""
        return self._lanes

    @property
    def is_assigned(self) -> bool:
        """Whether every assigned partition is open. A spare member without partitions is too."""
        return self._is_member and not self._opening

    @property
    def in_flight(self) -> int:
        """Events taken and not yet settled."""
        return self._in_flight

    async def start(self) -> None:
        """Join the group."""
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
        )
        consumer.subscribe([config.topic], listener=self)
        self._consumer = consumer
        await consumer.start()

    def close(self) -> None:
        """Open no more lanes: the end is near."""
        self._is_stopping = True

    async def stop(self) -> None:
        """Leave the group."""
        self.close()
        await self._cancel_opening(list(self._opening))
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
            await self._wait_for_room()
            window = Window([], [], [], time.monotonic())
            await self._poll_into(window, most, timeout_ms=1_000)
            if not window.records:
                continue
            deadline_s = window.polled_s + self._config.max_wait_ms / 1000
            while len(window) < most and self._has_room:
                remaining_ms = int((deadline_s - time.monotonic()) * 1000)
                if remaining_ms <= 0 or not await self._poll_into(window, most, remaining_ms):
                    break
            self._metrics.events.inc(len(window))
            self._metrics.in_flight.set(self._in_flight)
            self._metrics.stage_seconds.labels("wait").observe(time.monotonic() - window.polled_s)
            return window

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        # aiokafka never looks at it: with its fetcher dead, polls would find nothing for ever.
        died = self.consumer._fetcher.error_future  # noqa: SLF001
        if died.done():
            raise BrokerError(f"fetching has ended: {died.exception()!r}") from died.exception()

    async def _poll_into(self, window: Window, most: int, timeout_ms: int) -> int:
        self._is_polling = True
        try:
            polled = await self.consumer.getmany(
                timeout_ms=timeout_ms, max_records=most - len(window)
            )
        finally:
            self._is_polling = False
            self._polled_s = time.monotonic()
        if not window.records:
            window.polled_s = time.monotonic()
        taken = 0
        for partition, records in polled.items():
            lane = self._lanes.get(partition)
            if lane is None or not lane.is_open:
                # Taken before the lane was open: the lane's task seeks, so they come again.
                self._metrics.discarded.inc(len(records))
                continue
            if self._config.detect_loss:
                self._check_gap(partition, records)
            first = lane.admit(len(records))
            window.records.extend(records)
            window.lanes.extend([lane] * len(records))
            window.slots.extend(range(first, first + len(records)))
            taken += len(records)
            num_bytes = sum(map(event_bytes, records))
            lane.in_hand_bytes += num_bytes
            self._in_flight_bytes += num_bytes
        self._in_flight += taken
        return taken

    def _check_gap(self, partition: TopicPartition, records: list[Any]) -> None:
        expected = self._next_offset[partition]
        if records[0].offset != expected:
            raise BrokerError(
                f"{partition.topic}[{partition.partition}]: offsets {expected} to "
                f"{records[0].offset - 1} vanished before they were read: the embedded broker "
                "drops the oldest events of a partition beyond 5 MB; produce slower, or use a "
                "real broker"
            )
        self._next_offset[partition] = records[-1].offset + 1

    @property
    def _has_room(self) -> bool:
        config = self._config
        return (
            self._in_flight < config.max_in_flight_products
            and self._in_flight_bytes < config.max_in_flight_bytes
        )

    async def _wait_for_room(self) -> None:
        while not self._has_room:
            self._room.clear()
            await self._room.wait()

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
            self.consumer.resume(*(each for each in held if each in self._lanes))

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
        lane = run.lane
        if lane.is_open:
            num_events, num_bytes = len(run.outcomes), run.num_bytes
            lane.in_hand -= num_events
            lane.in_hand_bytes -= num_bytes
            self._in_flight -= num_events
            self._in_flight_bytes -= num_bytes
            self._room.set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Close the lanes; whatever of them is not with the broker goes to the next owner."""
        self._is_member = False
        try:
            lanes = await self._cancel_opening(revoked)
            lanes += [self._lanes.pop(each) for each in revoked if each in self._lanes]
            self.close_lanes(lanes)
            async with asyncio.timeout(_REVOKE_TIMEOUT_S):
                await self._delivery.close_lanes(lanes)
                await self._attempts.withdraw(revoked)
        except TimeoutError:
            _log.warning(
                "revocation of %d partitions: offsets not committed within %g s, their last "
                "results will come twice",
                len(revoked),
                _REVOKE_TIMEOUT_S,
            )
        except Exception as error:
            self._failure = error  # aiokafka only logs what a callback raises
            raise

    async def _cancel_opening(self, partitions: Collection[TopicPartition]) -> list[Lane]:
        opening = [self._opening.pop(each) for each in partitions if each in self._opening]
        for _, task in opening:
            task.cancel()
        await asyncio.gather(*(task for _, task in opening), return_exceptions=True)
        return [lane for lane, _ in opening]

    def close_lanes(self, lanes: Collection[Lane]) -> None:
        """Close lanes and give back the room that they took."""
        for lane in lanes:
            # A lane begins as if committed where it starts, which may be an offset that nobody did.
            if (lane.committed or 0) > self._start_offset.get(lane.partition, 0):
                self._seen_committed[lane.partition] = lane.committed or 0
            self._in_flight -= lane.in_hand
            self._in_flight_bytes -= lane.in_hand_bytes
            self._metrics.discarded.inc(lane.close())
            lane.in_hand = lane.in_hand_bytes = 0
        self._room.set()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hold the partitions back and open their lanes in tasks of their own."""
        self._epoch += 1
        self._is_member = True
        if assigned:
            self.consumer.pause(*assigned)
        if self._is_stopping:
            return
        for partition in assigned:
            self._start_opening(partition)

    def lost(self, lane: Lane, after_s: float) -> None:
        """Drop a lane that could not deliver; open its partition anew, as after an assignment.

        Args:
            after_s: how long to wait before that.
        """
        partition = lane.partition
        if self._lanes.get(partition) is not lane:
            return  # revoked meanwhile: it is the next owner's
        del self._lanes[partition]
        self.close_lanes([lane])
        self._metrics.lost_lanes.inc()
        try:
            self.consumer.pause(partition)
        except IllegalStateError:
            return  # about to be revoked
        if not self._is_stopping:
            self._epoch += 1
            self._start_opening(partition, after_s)

    def _start_opening(self, partition: TopicPartition, after_s: float = 0.0) -> None:
        lane = Lane(partition, self._epoch)
        task = asyncio.create_task(
            self._open(lane, after_s), name=f"open {partition.topic}[{partition.partition}]"
        )
        task.add_done_callback(self._opened)
        self._opening[partition] = lane, task

    def _opened(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error

    async def _open(self, lane: Lane, after_s: float) -> None:
        partition = lane.partition
        await asyncio.sleep(after_s)
        while True:
            try:
                await self._delivery.open_lane(lane)
                # Only now: a former owner that still commits must be heard or fenced first.
                committed = await self._settled_offset(partition)
                # Not seek_to_beginning: a leader that has changed would be asked for ever.
                first = (
                    (await self.consumer.beginning_offsets([partition]))[partition]
                    if committed is None
                    else committed
                )
                self.consumer.seek(partition, first)
            except IllegalStateError:
                return  # revoked meanwhile: another task opens it when it comes back
            except KafkaError as error:
                if not error.retriable and not isinstance(error, KafkaTimeoutError):
                    raise BrokerError(f"opening {partition}: {error}") from error
                _log.warning("opening %s: %s, trying again", partition, error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._start_offset[partition] = first
            if committed is not None:
                self._seen_committed[partition] = committed
            lane.deaths = await self._attempts.opened(partition)
            lane.delivered = lane.committed = first
            # What the embedded broker dropped before its first read is lost as well.
            self._next_offset[partition] = committed or 0
            self._lanes[partition] = lane
            self._opening.pop(partition, None)
            self.consumer.resume(partition)
            return

    async def _settled_offset(self, partition: TopicPartition) -> int | None:
        """The committed offset, which does not fall behind what this worker saw committed.

        A broker that was frozen answers from its memory for a moment before it learns that
        another one coordinates the group.
        """
        seen = self._seen_committed.get(partition)
        deadline_s = time.monotonic() + _STALE_S
        while True:
            committed = await self.committed(partition)
            if seen is None or (committed is not None and committed >= seen):
                return committed
            if time.monotonic() > deadline_s:
                _log.warning(
                    "%s: committed is %s, though this worker saw %d: somebody has set it back",
                    partition,
                    committed,
                    seen,
                )
                return committed
            await asyncio.sleep(_RETRY_S)

    async def measure_lag(self) -> dict[TopicPartition, int]:
        """Events between what each open lane has delivered and the end of its partition."""
        lags = {}
        for partition, lane in list(self._lanes.items()):
            end = self.consumer.highwater(partition)
            if end is None or lane.delivered is None or not lane.is_open:
                continue
            # What lies at the end may be a transaction's marker: read over, never delivered.
            reached = lane.delivered if lane.in_hand else await self._position(partition)
            lags[partition] = max(0, end - max(reached, lane.delivered))
        self.lags = lags
        return lags

    async def _position(self, partition: TopicPartition) -> int:
        try:
            position: int = await self.consumer.position(partition)
        except IllegalStateError:
            return 0  # revoked meanwhile
        return position
