"""Exactly-once delivery by itself, on a real broker: what a reader of committed events sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from tests.factories import record
from tests.hot_path_runs import sample
from tests.polling import until
from tests.services import TopicReader, Topics
from tests.streams import Group
from worker.delivery import DeliveryConfig
from worker.errors import ConfigError
from worker.events import dead_letter
from worker.exactly_once import ExactlyOnceDelivery, transactional_id
from worker.kafka import KafkaConfig
from worker.lane_writer import TransactionsConfig
from worker.lanes import Lane, Outcome, Result, Run
from worker.local.kafka import LocalKafka
from worker.metrics import Metrics
from worker.outbox import OutputTopics
from worker.partitioner import hash_keys

PARTITIONS = 3
LIMIT = 50_000
FENCED_PAUSE_S = 7.0


@dataclass
class Delivered:
    """A started delivery of one worker, and what it told of."""

    delivery: ExactlyOnceDelivery
    group: Group
    metrics: Metrics
    runs: list[Run] = field(default_factory=list)
    losses: list[tuple[Lane, float]] = field(default_factory=list)

    async def lane(self, partition: int) -> Lane:
        """An open lane, as the intake opens it."""
        lane = Lane(TopicPartition(self.group.topic, partition), epoch=1)
        await self.delivery.open_lane(lane)
        lane.delivered = lane.committed = await self.committed(lane.partition)
        return lane

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Never: offsets go through transactions only."""
        raise AssertionError(offsets)

    async def committed(self, partition: TopicPartition) -> int | None:
        """As the broker has it; 0 where there is none."""
        offsets = await asyncio.to_thread(self.group.offsets)
        return offsets[partition.partition][0]

    def settled(self, run: Run) -> None:
        """Remember what is done."""
        self.runs.append(run)

    def lost(self, lane: Lane, after_s: float) -> None:
        """Remember what is to be read again."""
        lane.close()
        self.losses.append((lane, after_s))


def result(partition: int, offset: int, key: bytes, padding: int = 0) -> Result:
    return Result(
        record(key=key, partition=partition, offset=offset),
        key,
        hash_keys([key])[0],
        "r/1",
        b"categories %d:%d%s" % (partition, offset, b"." * padding),
        b"attributes %d:%d" % (partition, offset),
    )


def run_of(lane: Lane, offsets: Collection[int], padding: int = 0) -> Run:
    """Outcomes of a lane, every tenth a dead letter."""
    number = lane.partition.partition
    outcomes: list[Outcome] = [
        dead_letter(record(b"{", partition=number, offset=offset), "invalid_json", "d", "r/1")
        if offset % 10 == 9
        else result(number, offset, b"key-%d" % (offset % 5), padding)
        for offset in offsets
    ]
    return Run(lane, outcomes)


StartDelivery = Callable[[], AbstractAsyncContextManager[Delivered]]


@pytest.fixture
def out(topics: Topics) -> OutputTopics:
    limit = {"max.message.bytes": str(LIMIT)}
    names = [topics("categories", partitions=PARTITIONS, config=limit)]
    names += [topics(name, partitions=PARTITIONS) for name in ("attributes", "dead")]
    return OutputTopics(
        categories=names[0],
        attributes=names[1],
        dead_letters=names[2],
        num_partitions=dict.fromkeys(names, PARTITIONS),
    )


@pytest.fixture
def group(kafka: LocalKafka, topics: Topics, group_id: str) -> Group:
    return Group(kafka.bootstrap_servers, group_id, topics("in", partitions=PARTITIONS))


@pytest.fixture
def start(kafka: LocalKafka, group: Group, out: OutputTopics) -> StartDelivery:
    @asynccontextmanager
    async def started() -> AsyncIterator[Delivered]:
        metrics = Metrics()
        delivery = ExactlyOnceDelivery(
            DeliveryConfig(compression="none"),
            TransactionsConfig(interval_ms=20, timeout_ms=20_000),
            KafkaConfig(bootstrap_servers=kafka.bootstrap_servers),
            out,
            metrics,
            group_id=group.group_id,
            fenced_pause_s=FENCED_PAUSE_S,
        )
        delivered = Delivered(delivery, group, metrics)
        await delivery.start(delivered)
        try:
            yield delivered
        finally:
            async with asyncio.timeout(30):
                await delivery.stop()

    return started


async def categories(read_all: TopicReader, out: OutputTopics, partition: int) -> list[int]:
    """Offsets whose categories a reader of committed events sees, in the order by key 0 to 4."""
    prefix = b"categories %d:" % partition
    records = await read_all(out.categories, read_committed=True)
    values = [(r.key, (r.value or b"").rstrip(b".")) for r in records]
    found = [(key, int(value[len(prefix) :])) for key, value in values if value.startswith(prefix)]
    return [offset for _, offset in sorted(found, key=lambda pair: pair[0] or b"")]


def wanted(offsets: Collection[int]) -> list[int]:
    """What ``categories`` gives when each came once and the order of keys was kept."""
    return sorted((o for o in offsets if o % 10 != 9), key=lambda offset: (offset % 5, offset))


async def test_runs_come_out_once_in_order_and_with_their_offsets(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    async with start() as delivered:
        first, second = await delivered.lane(0), await delivered.lane(1)
        for submitted, begin in enumerate(range(0, 1_000, 100), start=1):
            await delivered.delivery.submit([run_of(first, range(begin, begin + 100))])
            await delivered.delivery.submit([run_of(second, range(begin, begin + 100))])
            if submitted % 2 == 0:
                await delivered.delivery.flush()
                # Both lanes have committed these in transactions that hold nothing else.
                assert sample(delivered.metrics, "transactions_total") >= submitted

        assert (first.committed, second.committed) == (1_000, 1_000)
        assert (first.delivered, second.delivered) == (1_000, 1_000)
    assert [await categories(read_all, out, number) for number in (0, 1)] == [
        wanted(range(1_000))
    ] * 2
    assert len(await read_all(out.dead_letters, read_committed=True)) == 200
    assert {p: committed for p, (committed, _) in group.offsets().items()} == {
        0: 1_000, 1: 1_000, 2: 0,
    }  # fmt: skip
    assert len(delivered.runs) == 20
    assert sample(delivered.metrics, "results_total") == 1_800
    assert not delivered.losses


async def test_the_former_owner_of_a_lane_is_fenced_and_its_late_transaction_invisible(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics
) -> None:
    async with start() as former, start() as owner:
        theirs = await former.lane(0)
        await former.delivery.submit([run_of(theirs, range(100))])
        await former.delivery.flush()
        ours = await owner.lane(0)
        assert ours.committed == 100

        await former.delivery.submit([run_of(theirs, range(100, 200))])
        await until(lambda: None if former.losses else "nothing lost", 30, "a loss")
        await owner.delivery.submit([run_of(ours, range(100, 150))])
        await owner.delivery.flush()

        assert former.losses == [(theirs, FENCED_PAUSE_S)]
        assert sample(former.metrics, "aborted_transactions_total", reason="fenced") == 1
        assert former.delivery.not_ready()
        again = await former.lane(0)  # as the intake would, were it still a member
        assert not former.delivery.not_ready()
        assert again.committed == 150
        assert await categories(read_all, out, 0) == wanted(range(150))
        assert not owner.losses


async def test_what_a_dead_owner_left_open_is_undone_before_the_offset_is_read(
    kafka: LocalKafka, start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    lane = Lane(TopicPartition(group.topic, 0), epoch=1)
    dead = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=transactional_id(group.group_id, lane),
    )
    await dead.start()
    try:
        await dead.begin_transaction()
        await dead.send_and_wait(out.categories, b"categories 0:0", key=b"key-0", partition=0)
        await dead.send_offsets_to_transaction({lane.partition: 77}, group.group_id)

        async with start() as delivered:
            lane = await delivered.lane(0)
            assert lane.committed == 0
            await delivered.delivery.submit([run_of(lane, range(100))])
            await delivered.delivery.flush()
    finally:
        await dead.stop()

    assert await categories(read_all, out, 0) == wanted(range(100))
    assert group.offsets()[0][0] == 100


async def test_a_transaction_that_is_refused_for_its_size_goes_through_in_parts(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    async with start() as delivered:
        lane = await delivered.lane(0)
        for begin in range(0, 150, 50):
            await delivered.delivery.submit([run_of(lane, range(begin, begin + 50), padding=5_000)])
            await delivered.delivery.flush()

    assert await categories(read_all, out, 0) == wanted(range(150))
    attributes = await read_all(out.attributes, read_committed=True)
    assert len(attributes) == len(wanted(range(150)))
    assert group.offsets()[0][0] == lane.committed == 150
    assert sample(delivered.metrics, "aborted_transactions_total", reason="refused") >= 3
    assert not delivered.losses


async def test_an_output_that_no_batch_can_hold_becomes_a_dead_letter_of_the_same_transaction(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    async with start() as delivered:
        lane = await delivered.lane(0)
        runs = [run_of(lane, range(5)), run_of(lane, [5], LIMIT), run_of(lane, range(6, 9))]
        await delivered.delivery.submit(runs)
        await delivered.delivery.flush()

    assert await categories(read_all, out, 0) == wanted({*range(9)} - {5})
    (letter,) = await read_all(out.dead_letters, read_committed=True)
    assert dict(letter.headers)["reason"] == b"output_too_large"
    assert len(await read_all(out.attributes, read_committed=True)) == 9
    assert group.offsets()[0][0] == 9


async def test_refused_results_are_dropped_when_somebody_else_has_written_for_the_lane(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    async with start() as delivered:
        lane = await delivered.lane(0)
        await delivered.delivery.submit([run_of(lane, range(5))])
        await delivered.delivery.flush()
        lane.committed = 3  # what this worker would believe if another had gone on to 5
        await delivered.delivery.submit([run_of(lane, [5], LIMIT)])
        await delivered.delivery.flush()
        await until(lambda: None if delivered.losses else "nothing lost", 30, "a loss")

    assert sample(delivered.metrics, "aborted_transactions_total", reason="moved") == 1
    assert await categories(read_all, out, 0) == wanted(range(5))
    assert not await read_all(out.dead_letters, read_committed=True)
    assert group.offsets()[0][0] == 5


async def test_no_task_and_no_connection_is_left(start: StartDelivery) -> None:
    before = asyncio.all_tasks()
    async with start() as delivered:
        lanes = [await delivered.lane(number) for number in range(PARTITIONS)]
        await delivered.delivery.submit([run_of(lane, range(100)) for lane in lanes])
        await asyncio.sleep(0)
        lanes[0].close()
        await delivered.delivery.close_lanes([lanes[0]])
        producers = delivered.delivery.status()["producers"]
    await asyncio.sleep(0)  # for callbacks of what has just ended

    assert producers == PARTITIONS - 1
    assert not asyncio.all_tasks() - before


async def test_a_closed_lane_finishes_what_is_under_way_and_begins_nothing(
    start: StartDelivery, read_all: TopicReader, out: OutputTopics, group: Group
) -> None:
    async with start() as delivered:
        gone, kept = await delivered.lane(0), await delivered.lane(1)
        await delivered.delivery.submit([run_of(gone, range(50)), run_of(kept, range(50))])
        await delivered.delivery.flush()
        gone.close()
        await delivered.delivery.submit([run_of(gone, range(50, 90)), run_of(kept, range(50, 90))])
        await delivered.delivery.close_lanes([gone])
        await delivered.delivery.submit([run_of(gone, range(90, 95))])
        await delivered.delivery.flush()

        assert (gone.committed, kept.committed) == (50, 90)
        assert delivered.delivery.status()["producers"] == 1
    assert await categories(read_all, out, 0) == wanted(range(50))
    assert await categories(read_all, out, 1) == wanted(range(90))


async def test_a_transaction_longer_than_the_broker_allows_says_which_setting_to_change(
    kafka: LocalKafka, out: OutputTopics, group: Group
) -> None:
    delivery = ExactlyOnceDelivery(
        DeliveryConfig(),
        TransactionsConfig(timeout_ms=2_000_000_000),
        KafkaConfig(bootstrap_servers=kafka.bootstrap_servers),
        out,
        Metrics(),
        group_id=group.group_id,
    )
    await delivery.start(Delivered(delivery, group, Metrics()))

    with pytest.raises(ConfigError, match="SORTIMENT_SESSION_TIMEOUT_MS"):
        await delivery.open_lane(Lane(TopicPartition(group.topic, 0), epoch=1))
    await delivery.stop()
