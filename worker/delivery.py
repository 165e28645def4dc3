"""Delivery of runs: outputs and dead letters to Kafka, then the offset, as one unit per run.

``Delivery`` is what intake and hot path know. ``AtLeastOnceDelivery`` sends with one idempotent
producer for all lanes and commits by interval; a transactional one can open a producer per lane
and put the offset into the transaction, behind the same calls.

Sends overlap: while the broker acknowledges one flush, the next is built. Within an output
partition one batch goes after the other, so the order of a lane is the order of its outputs. When
a send fails the producer is replaced (a refused batch leaves a hole in its sequence numbers) and
what was not acknowledged is sent again, in order, for as long as its lanes are open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from worker.errors import BrokerError
from worker.events import DEAD_LETTER_HEADROOM_BYTES
from worker.kafka import KafkaConfig
from worker.lanes import DeadLetter, Lane, Outcome, Run
from worker.metrics import Metrics
from worker.outbox import OutBatch, OutputTopics, outgoing, split_refused
from worker.sender import Sender

__all__ = ["AtLeastOnceDelivery", "Compression", "Delivery", "DeliveryConfig"]

_log = logging.getLogger(__name__)

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Commit = Callable[[dict[TopicPartition, int]], Awaitable[None]]
Settled = Callable[[Run], None]

# Small enough that a partition's share of a flush goes in a few requests, large enough to compress.
_BATCH_BYTES = 512 * 1024
# One flush with the broker while the next is built: more only adds to what a failure repeats.
_MAX_FLUSHES = 2
_RETRY_S = 0.5
# Below the time that a revocation may take.
_COMMIT_TIMEOUT_S = 3.0
_FATAL = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryConfig:
    """How outputs are sent.

    Attributes:
        commit_interval_ms: time between offset commits.
        compression: codec of the output batches. Snappy costs 2 µs a product where aiokafka's lz4
            (at level 9) costs 26, for a third more bytes.
        max_event_bytes: largest event of the input topic: dead letters may be that large and
            ``DEAD_LETTER_HEADROOM_BYTES`` more.
        request_timeout_ms: how long the producer itself tries before it is replaced.
    """

    commit_interval_ms: int = 1_000
    compression: Compression = "snappy"
    max_event_bytes: int = 1_048_576
    request_timeout_ms: int = 15_000

    def __post_init__(self) -> None:
        if self.commit_interval_ms < 1:
            raise ValueError(
                f"commit_interval_ms must be at least 1, got {self.commit_interval_ms}"
            )


class Delivery(Protocol):
    """Takes runs of open lanes; what it has settled is with the broker, offsets included."""

    async def start(self, commit: Commit, settled: Settled) -> None:
        """Begin. ``settled`` is told of runs that need no further care."""
        ...

    async def open_lane(self, lane: Lane) -> None:
        """Make ready for a lane, before its committed offset is read. May be called again."""
        ...

    async def close_lanes(self, lanes: Collection[Lane]) -> None:
        """End closed lanes, even half open ones: commit what is with the broker, drop the rest."""
        ...

    async def submit(self, runs: list[Run]) -> None:
        """Take runs for delivery; waits while too much is under way."""
        ...

    async def failed(self) -> None:
        """Wait for ever, or raise what delivery cannot recover from."""
        ...

    async def flush(self) -> None:
        """Wait until what was submitted is with the broker, or delivery has failed."""
        ...

    async def stop(self) -> None:
        """Commit what is with the broker, and end; also when it has failed or hangs."""
        ...

    def not_ready(self) -> list[str]:
        """Why nothing is delivered at present; empty when it is."""
        ...


@dataclass(slots=True, eq=False)
class _Flush:
    runs: list[Run]
    batches: list[OutBatch]
    started_s: float


class AtLeastOnceDelivery:
    """One idempotent producer for all lanes, offsets committed by interval."""

    def __init__(
        self,
        config: DeliveryConfig,
        kafka: KafkaConfig,
        topics: OutputTopics,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._kafka = kafka
        self._topics = topics
        self._metrics = metrics
        self._sender: Sender | None = None
        self._commit: Commit | None = None
        self._settled: Settled | None = None
        self._pending: list[Run] = []
        self._flushes: list[_Flush] = []
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._lanes: set[Lane] = set()
        self._commit_lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._notifying: set[asyncio.Task[None]] = set()
        self._is_recovering = False
        self.last_error: str | None = None

    async def start(self, commit: Commit, settled: Settled) -> None:
        """As ``Delivery.start``."""
        self._commit = commit
        self._settled = settled
        self._sender = await self._new_sender()
        self._tasks = [
            asyncio.create_task(self._send_all(), name="delivery: send"),
            asyncio.create_task(self._commit_all(), name="delivery: commit"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, _: asyncio.Task[None]) -> None:
        # Whoever waits for flushes must learn that none will end any more.
        notifying = asyncio.create_task(self._notify())
        self._notifying.add(notifying)
        notifying.add_done_callback(self._notifying.discard)

    async def open_lane(self, lane: Lane) -> None:
        """As ``Delivery.open_lane``: the shared producer needs nothing."""
        self._lanes.add(lane)

    async def close_lanes(self, lanes: Collection[Lane]) -> None:
        """As ``Delivery.close_lanes``."""
        closing = set(lanes)
        try:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: (
                        self._is_broken()
                        or not any(run.lane in closing for f in self._flushes for run in f.runs)
                    )
                )
            await self._commit_delivered(closing)
        finally:
            # Also when the caller's patience has ended: an offset of theirs would now be refused.
            self._lanes -= closing

    async def submit(self, runs: list[Run]) -> None:
        """As ``Delivery.submit``; what may be under way is bounded by the intake."""
        self._pending.extend(runs)
        self._wake.set()

    async def failed(self) -> None:
        """As ``Delivery.failed``."""
        await asyncio.gather(*self._tasks)

    async def flush(self) -> None:
        """As ``Delivery.flush``."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (not self._pending and not self._flushes) or self._is_broken()
            )

    async def stop(self) -> None:
        """As ``Delivery.stop``."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commit_delivered(self._lanes)
        if self._sender is not None:
            await self._sender.end()

    def not_ready(self) -> list[str]:
        """As ``Delivery.not_ready``."""
        if self._is_recovering:
            return [f"outputs cannot be delivered, trying again: {self.last_error}"]
        return []

    def _is_broken(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def _send_all(self) -> None:
        sends: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                if self._pending and len(sends) < _MAX_FLUSHES:
                    flush = self._take_pending()
                    if flush is not None:
                        sends.add(asyncio.create_task(self._send(flush)))
                    continue
                sends = await self._wait_for_change(sends)
                self._settle()
                await self._notify()
        finally:
            for task in sends:
                task.cancel()

    def _take_pending(self) -> _Flush | None:
        # Closed lanes' runs belong to another worker by now.
        runs = [run for run in self._pending if run.lane.is_open]
        self._pending.clear()
        if not runs:
            return None
        batches = outgoing((o for run in runs for o in run.outcomes), self._topics)
        flush = _Flush(runs, batches, time.monotonic())
        self._flushes.append(flush)
        return flush

    async def _wait_for_change(self, sends: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait until a send ends or, with room for one more, runs come; returns what still runs."""
        wake = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[Any]] = set(sends)
        if len(sends) < _MAX_FLUSHES:
            waiting.add(wake)
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()
        ended = done & sends
        errors = [error for task in ended if not task.cancelled() and (error := task.exception())]
        if not errors:
            return sends - ended
        await self._recover(errors[0], sends - ended)
        return set()

    async def _send(self, flush: _Flush) -> None:
        assert self._sender is not None
        await self._sender.send(flush.batches)

    def _settle(self) -> None:
        """Take what is wholly sent off the books, in the order of submission."""
        while self._flushes and all(batch.is_sent for batch in self._flushes[0].batches):
            flush = self._flushes.pop(0)
            for run in flush.runs:
                run.lane.delivered = run.next_offset
                assert self._settled is not None
                self._settled(run)
            self._count(flush)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _count(self, flush: _Flush) -> None:
        metrics = self._metrics
        metrics.stage_seconds.labels("send").observe(time.monotonic() - flush.started_s)
        outcomes: list[Outcome] = [o for run in flush.runs for o in run.outcomes]
        reasons = Counter(o.reason for o in outcomes if isinstance(o, DeadLetter))
        for reason, count in reasons.items():
            metrics.dead_letters.labels(reason).inc(count)
        results = [o for o in outcomes if not isinstance(o, DeadLetter)]
        metrics.results.inc(len(results))
        metrics.abstentions.inc(sum(result.review for result in results))
        metrics.labels.inc(sum(result.num_labels for result in results))
        oldest = min(outcome.record.timestamp for outcome in outcomes)
        metrics.event_delay_seconds.set(max(0.0, time.time() - oldest / 1000))

    async def _recover(self, error: BaseException, others: set[asyncio.Task[None]]) -> None:
        """Replace the producer and send what was not acknowledged, until it is or is not ours."""
        self._is_recovering = True
        while True:
            if isinstance(error, _FATAL) or not isinstance(error, KafkaError):
                raise BrokerError(f"outputs cannot be delivered: {error}") from error
            self.last_error = f"{type(error).__name__}: {error}"
            _log.warning("delivery failed (%s), sending again with a new producer", self.last_error)
            self._metrics.redeliveries.inc()
            if self._sender is not None:
                sender, self._sender = self._sender, None
                await sender.end()
            await asyncio.gather(*others, return_exceptions=True)
            self._drop_closed()
            await self._notify()
            try:
                self._sender = await self._new_sender()
                for flush in self._flushes:
                    await self._send_parts(flush, self._sender)
            except _TOO_LARGE as again:
                error = again  # split by now: there is nothing to wait for
            except KafkaError as again:
                error = again
                await asyncio.sleep(_RETRY_S)
            else:
                self._is_recovering = False
                return

    async def _send_parts(self, flush: _Flush, sender: Sender) -> None:
        """Send a flush batch by batch; what is refused for its size is split for the next try."""
        for position, batch in enumerate(flush.batches):
            try:
                await sender.send([batch])
            except _TOO_LARGE:
                flush.batches[position : position + 1] = split_refused(batch, self._topics)
                _log.warning(
                    "%s[%d] refused a batch of %d messages for its size: split",
                    batch.topic,
                    batch.partition,
                    len(batch.messages),
                )
                raise

    def _drop_closed(self) -> None:
        """Forget what belongs to closed lanes: their next owners send it."""
        for flush in self._flushes:
            lanes = {run.lane for run in flush.runs}
            if all(lane.is_open for lane in lanes):
                continue
            flush.runs = [run for run in flush.runs if run.lane.is_open]
            sent = [batch for batch in flush.batches if batch.is_sent]
            kept = [
                OutBatch(batch.topic, batch.partition, messages)
                for batch in flush.batches
                if not batch.is_sent and (messages := _of_runs(batch, flush.runs))
            ]
            flush.batches = sent + kept
        self._flushes = [flush for flush in self._flushes if flush.runs]

    async def _commit_all(self) -> None:
        while True:
            await asyncio.sleep(self._config.commit_interval_ms / 1000)
            await self._commit_delivered(self._lanes)

    async def _commit_delivered(self, lanes: Collection[Lane]) -> None:
        async with self._commit_lock:
            due = {
                lane: lane.delivered
                for lane in lanes
                if lane.delivered is not None and lane.delivered != lane.committed
            }
            if not due:
                return
            assert self._commit is not None
            try:
                # aiokafka tries for ever, and with the generation of the moment: a commit from
                # before a rebalance must not go through after it.
                async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                    await self._commit({lane.partition: offset for lane, offset in due.items()})
            except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
                raise BrokerError(f"offsets cannot be committed: {error}") from error
            except (CommitFailedError, IllegalStateError) as error:
                # A rebalance came between: the next owner starts from the last commit.
                self._metrics.commits.labels("rebalanced").inc()
                _log.info("offsets not committed, the group is rebalancing: %s", error)
            except (TimeoutError, KafkaError) as error:
                self._metrics.commits.labels("failed").inc()
                self.last_error = f"{type(error).__name__}: {error}"
                _log.warning("offsets not committed (%s), next try soon", self.last_error)
            else:
                self._metrics.commits.labels("done").inc()
                for lane, offset in due.items():
                    lane.committed = offset

    async def _new_sender(self) -> Sender:
        config = self._config
        options: dict[str, Any] = {
            "client_id": "sortiment-worker",
            "enable_idempotence": True,
            "compression_type": None if config.compression == "none" else config.compression,
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": config.max_event_bytes + DEAD_LETTER_HEADROOM_BYTES,
            "request_timeout_ms": config.request_timeout_ms,
        }
        return await Sender.start(self._kafka.client_kwargs() | options)


def _of_runs(batch: OutBatch, runs: list[Run]) -> list[Any]:
    kept = {id(outcome.record) for run in runs for outcome in run.outcomes}
    return [message for message in batch.messages if id(message[3].record) in kept]
