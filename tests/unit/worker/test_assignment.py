"""Lanes that are lost while their partitions are being revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import cast

from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.assignment import Assignment
from worker.attempts import Attempts, AttemptsConfig
from worker.delivery import Delivery
from worker.lanes import Lane
from worker.metrics import Metrics
from worker.priorities import Priorities
from worker.room import Room

PARTITIONS = [TopicPartition("products", 0), TopicPartition("products", 1)]
# Never over in a test.
LONG_S = 300.0


class Held:
    """A consumer whose partitions are paused and nothing else."""

    def __init__(self) -> None:
        self.paused: list[TopicPartition] = []

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused += partitions


class Closed:
    """A delivery that is only told which lanes are closed."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    async def close_lanes(self, lanes: Collection[Lane]) -> None:
        self.lanes += lanes


def assignment(delivery: Closed) -> Assignment:
    room, metrics = Room(10, 10_000), Metrics()
    made = Assignment(
        cast(Delivery, delivery),
        Attempts(AttemptsConfig(), "shop", metrics),
        room,
        Priorities("products", None, 1, room, metrics),
        metrics,
    )
    made.consumer = cast(AIOKafkaConsumer, Held())
    return made


async def test_a_lane_that_is_lost_during_a_revocation_is_not_opened_anew() -> None:
    delivery = Closed()
    owner = assignment(delivery)
    await owner.on_partitions_assigned([])
    first, second = lanes = [Lane(partition, epoch=1) for partition in PARTITIONS]
    owner.lanes = dict(zip(PARTITIONS, lanes, strict=True))
    before = asyncio.all_tasks()

    owner.lost(first, LONG_S)
    assert not owner.is_open
    revoking = asyncio.create_task(owner.on_partitions_revoked(PARTITIONS))
    await asyncio.sleep(0)  # it waits for the end of what was being opened
    owner.lost(second, LONG_S)
    await revoking
    await owner.on_partitions_assigned([])

    assert owner.is_open
    assert asyncio.all_tasks() == before
    assert second in delivery.lanes
    assert owner.failure is None


async def test_an_opening_that_somebody_else_cuts_off_ends_the_worker() -> None:
    owner = assignment(Closed())
    await owner.on_partitions_assigned([])
    lane = Lane(PARTITIONS[0], epoch=1)
    owner.lanes[lane.partition] = lane
    before = asyncio.all_tasks()

    owner.lost(lane, LONG_S)
    (opening,) = asyncio.all_tasks() - before
    opening.cancel()
    await asyncio.wait([opening])
    await asyncio.sleep(0)

    assert "opening" in str(owner.failure)
    assert "cut off" in str(owner.failure)
