"""At-least-once delivery by itself, on a real broker: order, closed lanes, commits after sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka import TopicPartition

from tests.factories import record
from tests.polling import until
from tests.services import TopicReader, Topics
from worker.at_least_once import AtLeastOnceDelivery
from worker.delivery import DeliveryConfig
from worker.events import dead_letter
from worker.kafka import KafkaConfig
from worker.lanes import Lane, Outcome, Result, Run
from worker.local.kafka import LocalKafka
from worker.metrics import Metrics
from worker.outbox import OutputTopics
from worker.partitioner import hash_keys

PARTITIONS = 3


@dataclass
class Delivered:
    """A started delivery, and what it told of."""

    delivery: AtLeastOnceDelivery
    topics: OutputTopics
    commits: list[Mapping[TopicPartition, int]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    before_commit: Callable[[Mapping[TopicPartition, int]], Awaitable[None]] | None = None

    async def lane(self, partition: int) -> Lane:
        """An open lane."""
        lane = Lane(TopicPartition("products", partition), epoch=1)
        await self.delivery.open_lane(lane)
        return lane

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember what the group would be told."""
        if self.before_commit is not None:
            await self.before_commit(offsets)
        self.commits.append(offsets)

    async def committed(self, partition: TopicPartition) -> int | None:
        """The last of them."""
        return next((c[partition] for c in reversed(self.commits) if partition in c), None)

    def settled(self, run: Run) -> None:
        """Remember what is done."""
        self.runs.append(run)

    def lost(self, lane: Lane, after_s: float) -> None:
        """Never: this kind of delivery keeps its lanes."""
        raise AssertionError(lane)


StartDelivery = Callable[[], AbstractAsyncContextManager[Delivered]]


def result(partition: int, offset: int, key: bytes) -> Result:
    return Result(
        record(key=key, partition=partition, offset=offset),
        key,
        hash_keys([key])[0],
        "r/1",
        b"categories %d:%d" % (partition, offset),
        b"attributes %d:%d" % (partition, offset),
    )


def run_of(lane: Lane, offsets: Collection[int]) -> Run:
    """Outcomes of a lane, every tenth a dead letter."""
    number = lane.partition.partition
    outcomes: list[Outcome] = [
        dead_letter(record(b"{", partition=number, offset=offset), "invalid_json", "d", "r/1")
        if offset % 10 == 9
        else result(number, offset, b"key-%d" % (offset % 5))
        for offset in offsets
    ]
    return Run(lane, outcomes)


@pytest.fixture
def start(kafka: LocalKafka, topics: Topics) -> StartDelivery:
    names = [topics(name, partitions=PARTITIONS) for name in ("categories", "attributes", "dead")]

    @asynccontextmanager
    async def started() -> AsyncIterator[Delivered]:
        out = OutputTopics(
            categories=names[0],
            attributes=names[1],
            dead_letters=names[2],
            num_partitions=dict.fromkeys(names, PARTITIONS),
        )
        config = KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)
        delivery = AtLeastOnceDelivery(
            DeliveryConfig(), config, out, Metrics(), commit_interval_ms=20
        )
        delivered = Delivered(delivery, out)
        await delivery.start(delivered)
        try:
            yield delivered
        finally:
            async with asyncio.timeout(30):
                await delivery.stop()

    return started


async def test_runs_come_out_in_order_and_are_committed_as_far_as_they_go(
    start: StartDelivery, read_all: TopicReader
) -> None:
    async with start() as delivered:
        first, second = await delivered.lane(0), await delivered.lane(1)
        for begin in range(0, 1_000, 100):
            await delivered.delivery.submit([run_of(first, range(begin, begin + 100))])
            await delivered.delivery.submit([run_of(second, range(begin, begin + 50))])
        await delivered.delivery.flush()

    for topic, kind in (
        (delivered.topics.categories, b"categories"),
        (delivered.topics.attributes, b"attributes"),
    ):
        for number, step in ((0, 100), (1, 50)):
            offsets = [o for b in range(0, 1_000, 100) for o in range(b, b + step) if o % 10 != 9]
            for key in {b"key-%d" % n for n in range(5)}:
                found = [
                    r.value
                    for r in await read_all(topic)
                    if r.key == key and (r.value or b"").startswith(b"%s %d:" % (kind, number))
                ]
                wanted = [b"%s %d:%d" % (kind, number, o) for o in offsets if key[-1] - 48 == o % 5]
                assert found == wanted
    assert len(await read_all(delivered.topics.dead_letters)) == 100 + 50
    assert (first.committed, second.committed) == (1_000, 950)
    for number, ends in ((0, range(100, 1_001, 100)), (1, range(50, 951, 100))):
        partition = TopicPartition("products", number)
        committed = [commit[partition] for commit in delivered.commits if partition in commit]
        assert committed == sorted(set(committed))
        assert set(committed) <= set(ends)
    assert len(delivered.runs) == 20


async def test_what_is_committed_is_with_the_broker(
    start: StartDelivery, read_all: TopicReader
) -> None:
    missing: list[int] = []
    async with start() as delivered:
        lane = await delivered.lane(0)

        async def check(offsets: Mapping[TopicPartition, int]) -> None:
            (offset,) = offsets.values()
            there = {r.value for r in await read_all(delivered.topics.categories)}
            wanted = {b"categories 0:%d" % o for o in range(offset) if o % 10 != 9}
            missing.append(len(wanted - there))

        delivered.before_commit = check
        for begin in range(0, 2_000, 50):
            await delivered.delivery.submit([run_of(lane, range(begin, begin + 50))])
        await delivered.delivery.flush()

    assert set(missing) == {0}
    assert lane.committed == 2_000


async def test_a_closed_lane_is_committed_as_far_as_it_was_sent_and_sends_no_more(
    start: StartDelivery, read_all: TopicReader
) -> None:
    async with start() as delivered:
        gone, kept = await delivered.lane(0), await delivered.lane(1)
        await delivered.delivery.submit([run_of(gone, range(50)), run_of(kept, range(50))])
        await delivered.delivery.flush()
        gone.close()
        await delivered.delivery.submit([run_of(gone, range(50, 90)), run_of(kept, range(50, 90))])
        await delivered.delivery.close_lanes([gone])
        await delivered.delivery.flush()
        await until(lambda: None if kept.committed == 90 else "not committed", 30, "commit")

    assert (gone.delivered, gone.committed) == (50, 50)
    values = [r.value or b"" for r in await read_all(delivered.topics.categories)]
    assert sum(value.startswith(b"categories 0:") for value in values) == 45
    assert sum(value.startswith(b"categories 1:") for value in values) == 81
