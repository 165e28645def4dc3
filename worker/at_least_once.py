"""At-least-once delivery: one idempotent producer for all lanes, offsets committed by interval.

Sends overlap: while the broker acknowledges one flush, the next is built. Within an output
partition one batch goes after the other, so the order of a lane is the order of its outputs. When
a send fails the producer is replaced (a refused batch leaves a hole in its sequence numbers) and
what was not acknowledged is sent again, in order, for as long as its lanes are open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

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

from worker.delivery import DeliveryConfig, Upstream, count_settled
from worker.errors import BrokerError
from worker.kafka import KafkaConfig
from worker.lanes import Lane, Run
from worker.metrics import Metrics
from worker.outbox import OutBatch, OutputTopics, outgoing, split_refused
from worker.sender import Sender

__all__ = ["AtLeastOnceDelivery"]

_log = logging.getLogger(__name__)

# One flush with the broker while the next is built: more only adds to what a failure repeats.
_MAX_FLUSHES = 2
_RETRY_S = 0.5
# A flush takes some milliseconds; aiokafka's producer, being idempotent, tries for ever in silence.
_SLOW_S = 5.0
# Below the time that a revocation may take.
_COMMIT_TIMEOUT_S = 3.0
_FATAL = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(slots=True, eq=False)
class _Flush:
    runs: list[Run]
    batches: list[OutBatch]
    started_s: float


class AtLeastOnceDelivery:
    """One idempotent producer for all lanes, offsets committed by interval.

    Args:
        commit_interval_ms: time between offset commits.
    """

    def __init__(
        self,
        config: DeliveryConfig,
        kafka: KafkaConfig,
        topics: OutputTopics,
        metrics: Metrics,
        *,
        commit_interval_ms: int = 1_000,
    ) -> None:
        if commit_interval_ms < 1:
            raise ValueError(f"commit_interval_ms must be at least 1, got {commit_interval_ms}")
        self._config = config
        self._commit_interval_s = commit_interval_ms / 1000
        self._kafka = kafka
        self._topics = topics
        self._metrics = metrics
        self._sender: Sender | None = None
        self._upstream: Upstream | None = None
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

    async def start(self, upstream: Upstream) -> None:
        """As ``Delivery.start``."""
        self._upstream = upstream
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
        if self._slowest_s > _SLOW_S:
            return [f"outputs wait for the broker longer than {_SLOW_S:g} s"]
        return []

    def status(self) -> dict[str, Any]:
        """As ``Delivery.status``."""
        return {
            "kind": "at_least_once",
            "slowest_s": self._slowest_s,
            "last_error": self.last_error,
        }

    @property
    def _slowest_s(self) -> float:
        return time.monotonic() - self._flushes[0].started_s if self._flushes else 0.0

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
        assert self._upstream is not None
        while self._flushes and all(batch.is_sent for batch in self._flushes[0].batches):
            flush = self._flushes.pop(0)
            for run in flush.runs:
                run.lane.delivered = run.next_offset
                self._upstream.settled(run)
            count_settled(self._metrics, flush.runs, flush.started_s)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

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
                parts = split_refused(batch, self._topics, flush.runs)
                flush.batches[position : position + 1] = parts
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
            await asyncio.sleep(self._commit_interval_s)
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
            assert self._upstream is not None
            try:
                # aiokafka tries for ever, and with the generation of the moment: a commit from
                # before a rebalance must not go through after it.
                async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                    await self._upstream.commit(
                        {lane.partition: offset for lane, offset in due.items()}
                    )
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
        idempotent = {"enable_idempotence": True}
        options = self._kafka.client_kwargs() | self._config.producer_options() | idempotent
        return await Sender.start(options)


def _of_runs(batch: OutBatch, runs: list[Run]) -> list[Any]:
    kept = {id(outcome.record) for run in runs for outcome in run.outcomes}
    return [message for message in batch.messages if id(message[3].record) in kept]
