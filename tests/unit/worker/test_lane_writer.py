"""A lane's transactions: when they begin, what they hold, and what becomes of a refused one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from tests.factories import record
from worker.lane_writer import LaneLost, LaneWriter, TransactionsConfig
from worker.lanes import Lane, Result, Run
from worker.metrics import Metrics
from worker.outbox import OutBatch, OutputTopics
from worker.transactor import RefusedError, Transactor

TOPICS = OutputTopics(
    categories="c", attributes="a", dead_letters="d", num_partitions={"c": 1, "a": 1, "d": 1}
)
NEVER_MS = 3_600_000


@dataclass
class Broker:
    """What transactions brought, and the largest batch that it takes.

    Attributes:
        offsets: next offset of each transaction.
        open: transactions go through while it is set.
    """

    max_messages: int = 1_000
    offsets: list[int] = field(default_factory=list)
    sizes: list[list[int]] = field(default_factory=list)
    starts: int = 0
    ends: int = 0
    committed_by_others: int | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> Transactor:
        self.starts += 1
        return cast(Transactor, self)

    async def write(
        self, batches: Sequence[OutBatch], partition: TopicPartition, next_offset: int
    ) -> None:
        refused = [batch for batch in batches if len(batch.messages) > self.max_messages]
        if refused:
            raise RefusedError(refused, MessageSizeTooLargeError())
        await self.open.wait()
        self.sizes.append([len(batch.messages) for batch in batches])
        self.offsets.append(next_offset)

    async def end(self) -> None:
        self.ends += 1

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        raise AssertionError(offsets)

    async def committed(self, partition: TopicPartition) -> int | None:
        if self.committed_by_others is not None:
            return self.committed_by_others
        return self.offsets[-1] if self.offsets else None

    def settled(self, run: Run) -> None:
        """Needs no care."""

    def lost(self, lane: Lane, after_s: float) -> None:
        raise AssertionError(lane)


def run_of(lane: Lane, *offsets: int) -> Run:
    return Run(lane, [Result(record(offset=o), b"k", 0, "r/1", b"{}", None) for o in offsets])


Writing = Callable[..., AbstractAsyncContextManager[tuple[LaneWriter, asyncio.Task[None]]]]


@pytest.fixture
def broker() -> Broker:
    made = Broker()
    made.open.set()
    return made


@pytest.fixture
def writing(broker: Broker) -> Writing:
    """``async with writing(interval_ms=...) as (writer, task)``: a writer at work."""

    @asynccontextmanager
    async def start(**config: int) -> AsyncIterator[tuple[LaneWriter, asyncio.Task[None]]]:
        lane = Lane(TopicPartition("in", 0), epoch=1)
        transactions = TransactionsConfig(**config)
        writer = LaneWriter(lane, transactions, TOPICS, broker, Metrics(), broker.start)
        await writer.open()
        task = asyncio.create_task(writer.run())
        try:
            yield writer, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return start


async def test_the_first_run_goes_out_at_once_and_the_next_when_the_interval_is_over(
    writing: Writing, broker: Broker
) -> None:
    async with writing(interval_ms=1) as (writer, _):
        writer.add(run_of(writer.lane, 0, 1))
        await writer.idle()
        writer.add(run_of(writer.lane, 2))
        await writer.idle()

    assert broker.offsets == [2, 3]
    assert writer.lane.delivered == writer.lane.committed == 3


async def test_runs_gather_while_a_transaction_is_under_way(
    writing: Writing, broker: Broker
) -> None:
    broker.open.clear()
    async with writing(interval_ms=NEVER_MS) as (writer, _):
        writer.add(run_of(writer.lane, 0))
        await asyncio.sleep(0)
        for offset in (1, 2, 3):
            writer.add(run_of(writer.lane, offset))
        await asyncio.sleep(0)
        pending = writer.num_pending
        broker.open.set()
        writer.begin()
        await writer.idle()

    assert pending == 3
    assert broker.offsets == [1, 4]
    assert broker.sizes == [[1], [3]]


async def test_a_refused_batch_is_split_until_it_fits_by_a_new_producer_each_time(
    writing: Writing, broker: Broker
) -> None:
    broker.max_messages = 2
    async with writing() as (writer, _):
        writer.add(run_of(writer.lane, *range(7)))
        await writer.idle()

    assert broker.sizes == [[1, 2, 2, 2]]
    assert broker.offsets == [7]
    assert (broker.starts, broker.ends) == (3, 2)


async def test_refused_results_are_not_sent_again_where_another_has_gone_on(
    writing: Writing, broker: Broker
) -> None:
    broker.max_messages = 2
    broker.committed_by_others = 500
    async with writing() as (writer, task):
        writer.lane.committed = 0
        writer.add(run_of(writer.lane, *range(7)))
        with pytest.raises(LaneLost, match="offset is 500, not 0") as lost:
            await task

    assert lost.value.reason == "moved"
    assert not broker.offsets


async def test_told_to_finish_it_ends_what_is_under_way_and_begins_nothing(
    writing: Writing, broker: Broker
) -> None:
    broker.open.clear()
    async with writing(interval_ms=1) as (writer, task):
        writer.add(run_of(writer.lane, 0))
        await asyncio.sleep(0)
        writer.add(run_of(writer.lane, 1))
        writer.finish()
        broker.open.set()
        await task

    assert broker.offsets == [1]


async def test_a_closed_lane_begins_nothing(writing: Writing, broker: Broker) -> None:
    async with writing() as (writer, task):
        writer.add(run_of(writer.lane, 0))
        writer.lane.close()
        await task

    assert not broker.offsets


async def test_a_transaction_that_outlasts_its_timeout_is_given_up(
    writing: Writing, broker: Broker
) -> None:
    broker.open.clear()
    async with writing(timeout_ms=1) as (writer, task):
        writer.add(run_of(writer.lane, 0))
        with pytest.raises(TimeoutError):
            await task


@pytest.mark.parametrize("name", ["interval_ms", "timeout_ms", "max_products"])
def test_a_config_says_what_is_wrong_with_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        TransactionsConfig(**{name: 0})
