"""Which input is polled next: on a consumer of aiokafka's that has its partitions and no broker."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.lanes import Lane
from worker.metrics import Metrics
from worker.priorities import Priorities
from worker.room import Room

LIVE = [TopicPartition("live", 0), TopicPartition("live", 1)]
PAST = [TopicPartition("past", 0), TopicPartition("past", 1)]
MOST = 2_000
SMALL = 16


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """Is never started: it has partitions, and what a test says of them."""

    def __del__(self) -> None:
        pass


@pytest.fixture
def room() -> Room:
    return Room(max_products=100, max_bytes=1_000)


@pytest.fixture
async def consumer() -> AIOKafkaConsumer:
    made = Consumer(bootstrap_servers="127.0.0.1:1")
    made.assign([*LIVE, *PAST])
    for partition in [*LIVE, *PAST]:
        heard(made, partition, end=0, position=0)
    return made


@pytest.fixture
def priorities(consumer: AIOKafkaConsumer, room: Room) -> Priorities:
    made = Priorities("live", "past", SMALL, room, Metrics())
    made.consumer = consumer
    return made


def heard(
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    end: int | None,
    *,
    lso: int | None = None,
    position: int = 0,
) -> None:
    """As after a fetch: the partition ends there, its stable part there or elsewhere."""
    state = consumer._subscription.subscription.assignment.state_value(partition)
    state.seek(position)
    state.highwater = end
    state.lso = end if lso is None else lso


async def test_with_nothing_live_waiting_all_is_polled_in_small_windows(
    priorities: Priorities,
) -> None:
    turn = priorities.next_turn([*LIVE, *PAST], MOST)
    assert (turn.partitions, turn.most) == ((), SMALL)
    assert priorities.status() == {"topic": "past", "held": False, "why": None}


async def test_fewer_may_be_asked_for_than_a_small_window(priorities: Priorities) -> None:
    assert priorities.next_turn([*LIVE, *PAST], 3).most == 3


async def test_while_a_live_partition_lags_the_backfill_is_paused_and_unpolled(
    priorities: Priorities, consumer: AIOKafkaConsumer
) -> None:
    heard(consumer, LIVE[1], end=7)
    turn = priorities.next_turn([*LIVE, *PAST], MOST)
    assert (set(turn.partitions), turn.most) == (set(LIVE), MOST)
    assert consumer.paused() == set(PAST)
    assert priorities.why_held == "7 live events wait"
    assert not priorities.may_fetch(PAST[0])
    assert priorities.may_fetch(LIVE[0])

    heard(consumer, LIVE[1], end=7, position=7)
    assert priorities.next_turn([*LIVE, *PAST], MOST).partitions == ()
    assert consumer.paused() == set()


async def test_events_of_an_open_transaction_are_no_lag(
    priorities: Priorities, consumer: AIOKafkaConsumer
) -> None:
    heard(consumer, LIVE[0], end=50, lso=0)
    assert priorities.next_turn([*LIVE, *PAST], MOST).partitions == ()


async def test_a_live_partition_that_is_not_open_holds_the_backfill(
    priorities: Priorities, consumer: AIOKafkaConsumer
) -> None:
    consumer.pause(*LIVE, *PAST)
    turn = priorities.next_turn([LIVE[0], *PAST], MOST)
    assert set(turn.partitions) == set(LIVE)
    assert priorities.why_held == "1 live partitions are not open yet"
    assert set(LIVE) <= consumer.paused(), "whoever opens them resumes them"


async def test_a_live_partition_not_heard_of_holds_the_backfill(
    priorities: Priorities, consumer: AIOKafkaConsumer
) -> None:
    heard(consumer, LIVE[0], end=None)
    assert set(priorities.next_turn([*LIVE, *PAST], MOST).partitions) == set(LIVE)
    assert priorities.why_held == "not known yet what waits in 1 live partitions"


async def test_half_of_the_room_is_for_live_products(priorities: Priorities, room: Room) -> None:
    lane = Lane(PAST[0], epoch=1)
    room.take(lane, 50, 0)
    assert set(priorities.next_turn([*LIVE, *PAST], MOST).partitions) == set(LIVE)
    assert "half" in (priorities.why_held or "")
    room.drop(lane)
    room.take(lane, 1, 500)
    assert priorities.next_turn([*LIVE, *PAST], MOST).partitions != ()
    room.drop(lane)
    assert priorities.next_turn([*LIVE, *PAST], MOST).partitions == ()


async def test_a_partition_of_the_backfill_that_is_being_opened_stays_paused(
    priorities: Priorities, consumer: AIOKafkaConsumer
) -> None:
    consumer.pause(PAST[1])
    priorities.next_turn([*LIVE, PAST[0]], MOST)
    assert consumer.paused() == {PAST[1]}


async def test_without_live_partitions_nothing_holds_the_backfill(room: Room) -> None:
    consumer = Consumer(bootstrap_servers="127.0.0.1:1")
    consumer.assign(PAST)
    priorities = Priorities("live", "past", SMALL, room, Metrics())
    priorities.consumer = consumer
    assert priorities.next_turn(PAST, MOST).most == SMALL
    assert priorities.why_held is None


async def test_without_past_partitions_windows_are_large(room: Room) -> None:
    consumer = Consumer(bootstrap_servers="127.0.0.1:1")
    consumer.assign(LIVE)
    priorities = Priorities("live", "past", SMALL, room, Metrics())
    priorities.consumer = consumer
    turn = priorities.next_turn([], MOST)
    assert (turn.partitions, turn.most) == ((), MOST)
    assert priorities.why_held is None


def test_without_a_backfill_topic_all_is_live(room: Room) -> None:
    priorities = Priorities("live", None, SMALL, room, Metrics())
    turn = priorities.next_turn(LIVE, MOST)
    assert (turn.partitions, turn.most) == ((), MOST)
    assert priorities.topics == ["live"]
    assert priorities.status() is None
