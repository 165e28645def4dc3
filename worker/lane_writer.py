"""Writes the runs of one lane, a transaction after the other.

Runs gather until the interval since the last transaction's beginning is over, or until too many
wait; then all of them go into one transaction. It is open only for as long as the broker takes, and
what comes meanwhile gathers for the next. On an idle lane a run goes out at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.delivery import Upstream, count_settled
from worker.lanes import Lane, Run
from worker.metrics import Metrics
from worker.outbox import OutBatch, OutputTopics, outgoing, split_refused
from worker.transactor import RefusedError, Transactor

__all__ = ["LaneLost", "LaneWriter", "TransactionsConfig"]

_log = logging.getLogger(__name__)


class LaneLost(Exception):
    """A lane must start again from its committed offset.

    Args:
        reason: stable code, for the metric.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionsConfig:
    """When transactions begin and how long one may take.

    Attributes:
        interval_ms: from the beginning of a lane's transaction to that of the next.
        timeout_ms: after it the broker aborts an open transaction.
        max_products: so many waiting, in all lanes together, begin transactions before the
            interval is over.
    """

    interval_ms: int = 100
    timeout_ms: int = 30_000
    max_products: int = 4_096

    def __post_init__(self) -> None:
        for name in ("interval_ms", "timeout_ms", "max_products"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class LaneWriter:
    """One lane's transactions.

    Args:
        start: starts a transactor of the lane's transactional id, which fences the one before.
    """

    def __init__(
        self,
        lane: Lane,
        config: TransactionsConfig,
        topics: OutputTopics,
        upstream: Upstream,
        metrics: Metrics,
        start: Callable[[], Awaitable[Transactor]],
    ) -> None:
        self.lane = lane
        self.num_pending = 0
        self._config = config
        self._topics = topics
        self._upstream = upstream
        self._metrics = metrics
        self._start = start
        self._transactor: Transactor | None = None
        self._pending: list[Run] = []
        self._due_s = 0.0
        self._began_s: float | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_ending = False

    async def open(self) -> None:
        """Fence whoever wrote for this lane before.

        Raises:
            KafkaError: the broker does not let it.
        """
        self._transactor = await self._start()

    async def end(self) -> None:
        """Give the producer up, at once. May be called again."""
        if self._transactor is not None:
            await self._transactor.end()

    def add(self, run: Run) -> None:
        """Take a run, in offset order."""
        self._pending.append(run)
        self.num_pending += len(run.outcomes)
        self._idle.clear()
        self._wake.set()

    def begin(self) -> None:
        """Begin the next transaction without waiting for the interval."""
        self._due_s = 0.0
        self._wake.set()

    def finish(self) -> None:
        """Begin no transaction any more; ``run`` returns when the one under way has ended."""
        self._is_ending = True
        self._wake.set()

    @property
    def writing_s(self) -> float:
        """How long the transaction under way has taken so far; 0 where there is none."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    async def idle(self) -> None:
        """Wait until everything taken is committed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write what is added, until told to finish or the lane is closed.

        Raises:
            LaneLost: the lane has to start again.
            TimeoutError: the broker has aborted the transaction by now.
            KafkaError: anything else that the broker, or the client, has against it.
        """
        while True:
            await self._until_due()
            if self._is_ending or not self.lane.is_open:
                return
            runs, self._pending, self.num_pending = self._pending, [], 0
            self._began_s = began_s = time.monotonic()
            self._due_s = began_s + self._config.interval_ms / 1000
            await self._commit(runs)
            self._began_s = None
            self._settle(runs, began_s)

    async def _until_due(self) -> None:
        while not self._is_ending:
            wait_s = self._due_s - time.monotonic() if self._pending else None
            if wait_s is not None and wait_s <= 0:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _commit(self, runs: list[Run]) -> None:
        batches = outgoing((outcome for run in runs for outcome in run.outcomes), self._topics)
        async with asyncio.timeout(self._config.timeout_ms / 1000):
            while True:
                assert self._transactor is not None
                try:
                    await self._transactor.write(batches, self.lane.partition, runs[-1].next_offset)
                except RefusedError as refusal:
                    batches = self._split(batches, refusal, runs)
                    await self._replace()
                else:
                    return

    def _split(
        self, batches: list[OutBatch], refusal: RefusedError, runs: list[Run]
    ) -> list[OutBatch]:
        for batch in refusal.batches:
            _log.warning(
                "%s[%d] refused a batch of %d messages for its size: split",
                batch.topic,
                batch.partition,
                len(batch.messages),
            )
        self._metrics.aborted_transactions.labels("refused").inc()
        refused = {id(batch) for batch in refusal.batches}
        parts: list[OutBatch] = []
        for batch in batches:
            is_refused = id(batch) in refused
            parts += split_refused(batch, self._topics, runs) if is_refused else [batch]
        return parts

    async def _replace(self) -> None:
        """A new producer for the same results: only where nobody has written for the lane since."""
        await self.end()
        await self.open()
        self._metrics.redeliveries.inc()
        lane = self.lane
        committed = await self._upstream.committed(lane.partition)
        if committed is not None and committed != lane.committed:
            raise LaneLost("moved", f"the group's offset is {committed}, not {lane.committed}")

    def _settle(self, runs: list[Run], began_s: float) -> None:
        self.lane.delivered = self.lane.committed = runs[-1].next_offset
        self._metrics.transactions.inc()
        for run in runs:
            self._upstream.settled(run)
        count_settled(self._metrics, runs, began_s)
        if not self._pending:
            self._idle.set()
