"""Stages whose transactions fail while they run: the lane starts again, the rest goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition

from tests.catalog import products
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger
from tests.polling import until
from tests.streams import Group, Inputs, make_topic
from worker.exactly_once import transactional_id
from worker.lanes import Lane
from worker.local.kafka import LocalKafka

PARTITIONS = 3


async def fence(kafka: LocalKafka, group: Group, partition: int) -> None:
    """Take a lane's transactional id over, as another worker would, and leave it at once."""
    lane = Lane(TopicPartition(group.topic, partition), epoch=0)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=transactional_id(group.group_id, lane),
    ):
        pass


async def test_a_fenced_lane_starts_again_from_its_offset_and_nothing_comes_twice(
    kafka: LocalKafka,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    make_topic(kafka.bootstrap_servers, inputs.topic, PARTITIONS)
    small = {"max_in_flight_products": 400, "max_poll_records": 200, "max_batch_products": 64}
    fast = {"heartbeat_interval_ms": 300} | small
    async with HotPathRun(settings | fast, load_serving(noop)) as run:
        epochs = {
            lane.partition.partition: lane.epoch for lane in run.hot_path._intake.lanes.values()
        }
        for turn in range(1, 4):
            feeding = asyncio.create_task(inputs.send(products(3_000, start=len(inputs))))
            await fence(kafka, group, partition=1)
            await feeding
            # What it had under way, or at the latest what it is sent now, meets the fence.
            await inputs.send(products(50, start=len(inputs)), partition=1)
            await until(
                lambda turn=turn: (
                    None if sample(run.metrics, "lost_lanes_total") == turn else "no lane lost"
                ),
                30,
                "a loss",
            )
            await group.caught_up()
        lanes = run.hot_path.status()["assigned"]
        await run.hot_path._intake.measure_lag()
        lags = run.hot_path._intake.lags

    assert not (await ledger.audit()).places
    assert sample(run.metrics, "aborted_transactions_total", reason="fenced") == 3
    assert {lane["partition"]: lane["epoch"] for lane in lanes} == epochs | {1: epochs[1] + 3}
    assert set(lags.values()) == {0}
    assert all(lane["in_hand"] == 0 for lane in lanes)
    assert run.hot_path.status()["in_flight_products"] == 0


async def test_status_and_metrics_tell_the_kind_of_delivery(
    settings: dict[str, object], noop: Path, inputs: Inputs, group: Group, delivery: str
) -> None:
    async with HotPathRun(settings | {"delivery": delivery}, load_serving(noop)) as run:
        await inputs.send(products(100))
        await group.caught_up()
        status = run.hot_path.status()["delivery"]

    assert status["kind"] == delivery
    assert sample(run.metrics, "delivery_info", kind=delivery) == 1
    assert (sample(run.metrics, "transactions_total") > 0) == (delivery == "exactly_once")
