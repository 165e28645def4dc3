"""The partitions that the group has assigned, and a lane for each, opened in a task of its own.

Rebalance callbacks are short: assignment only pauses and starts a task per partition, since
aiokafka goes on delivering while a callback runs; revocation closes the lanes and lets delivery
commit what is already with the broker, within a bound. A lane that delivery loses is opened anew in
the same way.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError

from worker.attempts import Attempts
from worker.delivery import Delivery
from worker.errors import BrokerError
from worker.group_offsets import committed_offset
from worker.lanes import Lane
from worker.metrics import Metrics
from worker.priorities import Priorities
from worker.room import Room

__all__ = ["Assignment"]

_log = logging.getLogger(__name__)

# A revocation must end well before the group's rebalance time-out, or the member is thrown out.
_REVOKE_TIMEOUT_S = 5.0
_RETRY_S = 0.5
# A frozen broker was seen to answer from old memory for less than a second.
_STALE_S = 10.0


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Opens and closes lanes as the group, or delivery, has it.

    Attributes:
        consumer: set before it is started.
        lanes: the open ones.
        failure: what a callback or the opening of a lane ended with: the worker cannot go on.
    """

    def __init__(
        self,
        delivery: Delivery,
        attempts: Attempts,
        room: Room,
        priorities: Priorities,
        metrics: Metrics,
    ) -> None:
        self._delivery = delivery
        self._attempts = attempts
        self._room = room
        self._priorities = priorities
        self._metrics = metrics
        self._opening: dict[TopicPartition, tuple[Lane, asyncio.Task[None]]] = {}
        self._start_offset: dict[TopicPartition, int] = {}
        self._seen_committed: dict[TopicPartition, int] = {}
        self._epoch = 0
        self._is_member = False
        self._is_closing = False
        self.consumer: AIOKafkaConsumer
        self.lanes: dict[TopicPartition, Lane] = {}
        self.failure: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether every assigned partition is open. A spare member without partitions is too."""
        return self._is_member and not self._opening

    def close(self) -> None:
        """Open no more lanes: the end is near."""
        self._is_closing = True

    async def stop(self) -> None:
        """End what is being opened."""
        self.close()
        await _cancelled([task for _, task in self._opening.values()])
        self._opening.clear()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Close the lanes; whatever of them is not with the broker goes to the next owner."""
        self._is_member = False
        # All at once, before the first wait: what is lost meanwhile must not be opened anew.
        opening = [self._opening.pop(each) for each in revoked if each in self._opening]
        lanes = [self.lanes.pop(each) for each in revoked if each in self.lanes]
        lanes += [lane for lane, _ in opening]
        try:
            self._close(lanes)
            async with asyncio.timeout(_REVOKE_TIMEOUT_S):
                await _cancelled([task for _, task in opening])
                await self._delivery.close_lanes(lanes)
                await self._attempts.withdraw(revoked)
        except TimeoutError:
            _log.warning(
                "revocation of %d partitions: not settled within %g s, the next owner begins at "
                "the committed offsets",
                len(revoked),
                _REVOKE_TIMEOUT_S,
            )
        except Exception as error:
            self.failure = error  # aiokafka only logs what a callback raises
            raise

    def _close(self, lanes: Collection[Lane]) -> None:
        """Close lanes and give back the room that they took."""
        for lane in lanes:
            # A lane begins as if committed where it starts, which may be an offset that nobody did.
            if (lane.committed or 0) > self._start_offset.get(lane.partition, 0):
                self._seen_committed[lane.partition] = lane.committed or 0
            self._room.drop(lane)
            self._metrics.discarded.inc(lane.close())

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hold the partitions back and open their lanes in tasks of their own."""
        self._epoch += 1
        self._is_member = True
        if assigned:
            self.consumer.pause(*assigned)
        if self._is_closing:
            return
        for partition in assigned:
            self._start_opening(partition)

    def lost(self, lane: Lane, after_s: float) -> None:
        """Drop a lane that could not deliver; open its partition anew, as after an assignment.

        Args:
            after_s: how long to wait before that.
        """
        partition = lane.partition
        if self.lanes.get(partition) is not lane:
            return  # revoked meanwhile: it is the next owner's
        del self.lanes[partition]
        self._close([lane])
        self._metrics.lost_lanes.inc()
        try:
            self.consumer.pause(partition)
        except IllegalStateError:
            return  # about to be revoked
        if not self._is_closing:
            self._epoch += 1
            self._start_opening(partition, after_s)

    def _start_opening(self, partition: TopicPartition, after_s: float = 0.0) -> None:
        lane = Lane(partition, self._epoch)
        task = asyncio.create_task(
            self._open(lane, after_s), name=f"open {partition.topic}[{partition.partition}]"
        )
        task.add_done_callback(functools.partial(self._opened, lane))
        self._opening[partition] = lane, task

    def _opened(self, lane: Lane, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException | None = BrokerError(f"opening {lane.partition} was cut off")
        else:
            error = task.exception()
        # Of a lane that was revoked nothing is wanted any more.
        if lane.is_open and not self._is_closing:
            self.failure = self.failure or error

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
            if not lane.is_open:
                return  # revoked, and aiokafka swallowed the cancellation
            lane.delivered = lane.committed = first
            # What the embedded broker dropped before its first read is lost as well.
            lane.next_offset = committed or 0
            self.lanes[partition] = lane
            self._opening.pop(partition, None)
            if self._priorities.may_fetch(partition):
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
            committed = await committed_offset(self.consumer, partition)
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


async def _cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
