"""A broker that goes away under load and comes back: the worker waits, goes on, loses nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.ledger import Ledger
from tests.polling import until
from tests.streams import Feeder, Group, Inputs, lacks_results, make_topic, metric
from worker.local.kafka import LocalKafka, start_kafka
from worker.local.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker that this test may stop, wherever that of the other tests is."""
    environ = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    with start_kafka(environ) as running:
        yield running


@pytest.fixture
async def producer(kafka: LocalKafka) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that tries again without writing twice."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        request_timeout_ms=120_000,
    ) as started:
        yield started


async def test_a_worker_outlives_a_restart_and_a_power_cut_of_the_broker(
    kafka: LocalKafka,
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    # Exactly once needs more than one replica: a broker that holds the only one may skip, when it
    # comes back, the ends of transactions that it had acknowledged. tests/chaos has three.
    make_topic(kafka.bootstrap_servers, inputs.topic, 4)
    worker = worker_process(
        release=noop,
        delivery="at_least_once",
        max_in_flight_products=400,
        max_poll_records=200,
        max_batch_products=64,
    )
    async with Feeder(inputs, group):
        await until(partial(lacks_results, worker, 1_000), 60, "under load")
        await asyncio.to_thread(kafka.restart)
        done = metric(worker, "results_total")
        await until(partial(lacks_results, worker, done + 1_000), 120, "on after a restart")
        await asyncio.to_thread(kafka.kill)
        await asyncio.to_thread(kafka.start)
        done = metric(worker, "results_total")
        await until(partial(lacks_results, worker, done + 1_000), 120, "on after a power cut")
    await group.caught_up(worker)

    repeats = await ledger.audit()
    # At most what was in hand when the broker went, each time.
    assert len(repeats.places) <= 2 * 400
    worker.terminate()
    assert worker.wait(60) == 0
