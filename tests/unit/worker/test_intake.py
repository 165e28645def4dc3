"""Intake by itself: what needs no broker."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from aiokafka import TopicPartition

from tests.factories import record
from worker.attempts import Attempts, AttemptsConfig
from worker.delivery import Delivery
from worker.intake import Intake, IntakeConfig
from worker.kafka import KafkaConfig
from worker.lanes import Lane, Result
from worker.metrics import Metrics


async def test_a_cancellation_that_meets_new_room_is_not_lost() -> None:
    # Never started, so neither broker nor delivery is asked for anything.
    intake = Intake(
        IntakeConfig(max_in_flight_products=1),
        KafkaConfig(bootstrap_servers="localhost:9092"),
        cast(Delivery, None),
        Attempts(AttemptsConfig(), "group", Metrics()),
        Metrics(),
    )
    lane = Lane(TopicPartition("in", 0), epoch=1)
    slot = lane.admit(1)
    lane.complete([slot], [Result(record(), b"k", 0, "r/1", b"{}", None)])
    run = lane.release()
    assert run is not None
    intake._in_flight = 1
    intake._check_alive = lambda: None
    taking = asyncio.create_task(intake.next_window())
    await asyncio.sleep(0)

    intake.settled(run)
    intake._in_flight = 1  # taken again before the task is awake
    await asyncio.sleep(0)
    taking.cancel()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await taking
