"""Exactly-once delivery: every lane's outputs and its offset in transactions of the lane's own.

A lane has its own producer, whose transactional id is ``group:topic:partition`` of the input and so
the same for every worker that ever owns the partition. Opening a lane initialises it before the
committed offset is read: that fences the former owner, whatever it still has under way, and settles
its open transaction. (aiokafka commits offsets in a transaction without the group's generation, so
one producer for all lanes would let a worker that has lost its partitions go on committing.)

Nothing is mended in place: on any error, and on a revocation, the lane's results are dropped, its
producer is given up, which aborts its transaction, and the partition is read again from its offset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from typing import Any

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidProducerEpoch,
    InvalidTransactionTimeout,
    KafkaError,
    ProducerFenced,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from worker.delivery import DeliveryConfig, Upstream
from worker.errors import BrokerError, ConfigError
from worker.kafka import KafkaConfig
from worker.lane_writer import LaneLost, LaneWriter, TransactionsConfig
from worker.lanes import Lane, Run
from worker.metrics import Metrics
from worker.outbox import OutputTopics
from worker.transactor import Transactor

__all__ = ["ExactlyOnceDelivery", "transactional_id"]

_log = logging.getLogger(__name__)

_RETRY_S = 0.5
# Below the time that a revocation may take.
_FINISH_S = 3.0
# A new producer needs a few answers of its coordinator; aiokafka asks for ever, and says nothing.
_OPEN_S = 20.0
# A transaction takes some milliseconds; longer than this, and something is wrong with the broker.
_SLOW_S = 5.0
_FATAL = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


def transactional_id(group_id: str, lane: Lane) -> str:
    """Of the producer of a lane; no two lanes share one, since a topic's name has no colon."""
    return f"{group_id}:{lane.partition.topic}:{lane.partition.partition}"


class ExactlyOnceDelivery:
    """A transactional producer and a task for every lane.

    Args:
        group_id: the consumer group whose offsets are committed.
        fenced_pause_s: how long a lane rests that another producer has taken over: long enough
            for this worker to hear from the group whether it is still a member.
    """

    def __init__(
        self,
        config: DeliveryConfig,
        transactions: TransactionsConfig,
        kafka: KafkaConfig,
        topics: OutputTopics,
        metrics: Metrics,
        *,
        group_id: str,
        fenced_pause_s: float = 3.0,
    ) -> None:
        self._config = config
        self._transactions = transactions
        self._kafka = kafka
        self._topics = topics
        self._metrics = metrics
        self._group_id = group_id
        self._fenced_pause_s = fenced_pause_s
        self._upstream: Upstream | None = None
        self._writers: dict[Lane, LaneWriter] = {}
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] | None = None
        self._troubled: dict[Any, str] = {}
        self.last_error: str | None = None

    async def start(self, upstream: Upstream) -> None:
        """As ``Delivery.start``."""
        self._upstream = upstream
        self._failure = asyncio.get_running_loop().create_future()

    async def open_lane(self, lane: Lane) -> None:
        """As ``Delivery.open_lane``: fences the former owner and settles what it left open.

        Raises:
            ConfigError: the broker allows no transaction as long as the session.
            BrokerError: this user may not write transactions of this id.
        """
        if lane in self._writers:
            return
        assert self._upstream is not None
        options = (
            self._kafka.client_kwargs()
            | self._config.producer_options()
            | {
                "transactional_id": transactional_id(self._group_id, lane),
                "transaction_timeout_ms": self._transactions.timeout_ms,
            }
        )
        writer = LaneWriter(
            lane,
            self._transactions,
            self._topics,
            self._upstream,
            self._metrics,
            lambda: Transactor.start(options, self._group_id),
        )
        while True:
            try:
                async with asyncio.timeout(_OPEN_S):
                    await writer.open()
            except KafkaError as error:
                self._check_hopeful(error)
                self._note(lane, f"producer not started, trying again: {_told(error)}")
                await asyncio.sleep(_RETRY_S)
            except TimeoutError:
                self._note(
                    lane,
                    f"producer not started within {_OPEN_S:g} s, trying again: no transaction "
                    "coordinator answers; see that there are as many brokers as the setting "
                    "transaction.state.log.replication.factor says",
                )
            else:
                break
        self._troubled.pop(lane.partition, None)
        self._writers[lane] = writer
        self._tasks[lane] = asyncio.create_task(
            self._write(writer), name=f"write {lane.partition.topic}[{lane.partition.partition}]"
        )

    async def close_lanes(self, lanes: Collection[Lane]) -> None:
        """As ``Delivery.close_lanes``: waits a bounded time for transactions under way."""
        writers = [self._writers.pop(lane) for lane in lanes if lane in self._writers]
        tasks = {self._tasks.pop(writer.lane): writer for writer in writers}
        try:
            await self._finish(tasks)
        finally:
            # Not before: a transaction that ends badly notes it.
            for lane in lanes:
                self._troubled.pop(lane.partition, None)

    async def _finish(self, tasks: dict[asyncio.Task[None], LaneWriter]) -> None:
        if not tasks:
            return
        writers = tasks.values()
        for writer in writers:
            writer.finish()
        try:
            _, unfinished = await asyncio.wait(tasks, timeout=_FINISH_S)
            for task in unfinished:
                _log.warning("transaction of %s given up", tasks[task].lane.partition)
                self._metrics.aborted_transactions.labels("revoked").inc()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *(w.end() for w in writers), return_exceptions=True)

    async def submit(self, runs: list[Run]) -> None:
        """As ``Delivery.submit``; what may be under way is bounded by the intake."""
        for run in runs:
            writer = self._writers.get(run.lane)
            if writer is not None:  # else the lane has been lost since
                writer.add(run)
        writers = self._writers.values()
        if sum(writer.num_pending for writer in writers) >= self._transactions.max_products:
            for writer in writers:
                writer.begin()

    async def failed(self) -> None:
        """As ``Delivery.failed``."""
        assert self._failure is not None
        await asyncio.shield(self._failure)

    async def flush(self) -> None:
        """As ``Delivery.flush``; from now on transactions no longer wait for their interval."""
        for writer in self._writers.values():
            writer.begin()
        await asyncio.gather(
            *(_until_idle(self._writers[lane], task) for lane, task in self._tasks.items())
        )

    async def stop(self) -> None:
        """As ``Delivery.stop``."""
        await self.close_lanes(list(self._writers))
        if self._failure is not None and not self._failure.cancel():
            self._failure.exception()  # told by ``failed``, or by what made the worker stop before

    def not_ready(self) -> list[str]:
        """As ``Delivery.not_ready``."""
        reasons = []
        if self._troubled:
            reasons.append(
                f"outputs of {len(self._troubled)} partitions cannot be delivered: "
                f"{next(iter(self._troubled.values()))}"
            )
        slow = sum(writer.writing_s > _SLOW_S for writer in self._writers.values())
        if slow:
            reasons.append(f"transactions of {slow} partitions take longer than {_SLOW_S:g} s")
        return reasons

    def status(self) -> dict[str, Any]:
        """As ``Delivery.status``."""
        return {
            "kind": "exactly_once",
            "producers": len(self._writers),
            "slowest_s": max((writer.writing_s for writer in self._writers.values()), default=0.0),
            "last_error": self.last_error,
        }

    async def _write(self, writer: LaneWriter) -> None:
        """Run a writer; its failure costs the lane or, where that is no help, the worker."""
        try:
            await writer.run()
        except (KafkaError, LaneLost, TimeoutError) as error:
            await self._lose(writer, error)
        except Exception as error:  # noqa: BLE001  a fault of our own: the worker ends by it
            self._fail(error)

    async def _lose(self, writer: LaneWriter, error: Exception) -> None:
        lane = writer.lane
        reason = _reason(error)
        self._metrics.aborted_transactions.labels(reason).inc()
        try:
            self._check_hopeful(error)
        except (BrokerError, ConfigError) as hopeless:
            self._fail(hopeless)
            return
        self._note(lane, f"going back to the committed offset ({reason}): {_told(error)}")
        await writer.end()
        # Closed meanwhile, it is ``close_lanes`` that has taken it.
        if self._writers.pop(lane, None) is None:
            return
        self._tasks.pop(lane, None)
        self._metrics.redeliveries.inc()
        assert self._upstream is not None
        self._upstream.lost(lane, self._fenced_pause_s if reason == "fenced" else _RETRY_S)

    def _note(self, lane: Lane, what: str) -> None:
        self.last_error = self._troubled[lane.partition] = what
        _log.warning("%s[%d]: %s", lane.partition.topic, lane.partition.partition, what)

    def _fail(self, error: Exception) -> None:
        assert self._failure is not None
        if not self._failure.done():
            self._failure.set_exception(error)

    def _check_hopeful(self, error: Exception) -> None:
        for each in _chain(error):
            if isinstance(each, InvalidTransactionTimeout):
                raise ConfigError(
                    [
                        "SORTIMENT_SESSION_TIMEOUT_MS: a transaction may stay open for as long, "
                        f"{self._transactions.timeout_ms} ms, and the broker allows less "
                        "(transaction.max.timeout.ms); lower the former or raise the latter"
                    ]
                ) from error
            if isinstance(each, _FATAL):
                raise BrokerError(
                    f"outputs cannot be delivered: {type(each).__name__}: {each}; grant this user "
                    "Write on the output topics, Read on the group, and Write and Describe on "
                    f"transactional ids that begin with {self._group_id}:"
                ) from error


async def _until_idle(writer: LaneWriter, writing: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(writer.idle())
    try:
        # A writer that has failed is never idle.
        await asyncio.wait({waiting, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # aiokafka wraps what it does not expect.
    while error is not None:
        yield error
        error = error.__cause__


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _reason(error: Exception) -> str:
    if isinstance(error, LaneLost):
        return error.reason
    if isinstance(error, TimeoutError):
        return "timed_out"
    if any(isinstance(each, ProducerFenced | InvalidProducerEpoch) for each in _chain(error)):
        return "fenced"
    return "failed"
