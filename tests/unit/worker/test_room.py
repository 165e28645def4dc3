"""Room for events in hand."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from tests.factories import record
from worker.lanes import Lane, Result, Run
from worker.room import Room


@pytest.fixture
def lane() -> Lane:
    return Lane(TopicPartition("in", 0), epoch=1)


def run_of(lane: Lane, num: int) -> Run:
    slot = lane.admit(num)
    outcomes = [Result(record(), b"k", 0, "r/1", b"{}", None) for _ in range(num)]
    lane.complete(range(slot, slot + num), outcomes)
    run = lane.release()
    assert run is not None
    return run


def test_products_and_bytes_both_take_room(lane: Lane) -> None:
    room = Room(max_products=2, max_bytes=10)
    room.take(lane, 1, 9)
    assert room.is_left
    room.take(lane, 1, 0)
    assert not room.is_left
    room.drop(lane)
    room.take(lane, 1, 10)
    assert not room.is_left
    assert (lane.in_hand, lane.in_hand_bytes) == (1, 10)


def test_what_a_closed_lane_had_is_given_back_once(lane: Lane) -> None:
    room = Room(max_products=5, max_bytes=1_000)
    run = run_of(lane, 2)
    room.take(lane, 2, run.num_bytes)
    room.drop(lane)
    lane.close()
    room.give(run)
    assert room.num_products == 0
    assert (lane.in_hand, lane.in_hand_bytes) == (0, 0)


async def test_a_cancellation_that_meets_new_room_is_not_lost(lane: Lane) -> None:
    room = Room(max_products=1, max_bytes=1_000)
    run = run_of(lane, 1)
    room.take(lane, 1, 0)
    waiting = asyncio.create_task(room.wait())
    await asyncio.sleep(0)

    room.drop(lane)
    room.take(lane, 1, 0)  # taken again before the task is awake
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await waiting
    room.give(run)
    async with asyncio.timeout(5):
        await room.wait()
