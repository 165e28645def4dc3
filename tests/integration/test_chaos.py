"""Three brokers, of which one fails: `make chaos` in small, and what a worker says of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient

from demo.catalog.build import write_catalog
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from tests.chaos.cells import Cell
from tests.chaos.feed import load_products
from tests.chaos.run import Bench, run_cell
from tests.chaos.verdict import Verdict
from tests.hot_path_runs import HotPathRun, goes_on, load_serving, says
from tests.ledger import Ledger
from tests.services import WorkerTopics
from tests.streams import Feeder, Group, Inputs, alter_topic
from worker.local.kafka import LocalKafka
from worker.local.kafka_cluster import KafkaCluster, start_cluster

PRODUCTS = 400
PARTITIONS = 3
BACKLOG = 1_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers that may fail."""
    with start_cluster(os.environ, logs=tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, cluster: KafkaCluster) -> Bench:
    """The cluster, a release and products."""
    directory = tmp_path_factory.mktemp("chaos")
    catalog = write_catalog(directory / "catalog")
    taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
    return Bench(
        cluster=cluster,
        release=noop_release(directory / "release", taxonomy).directory,
        products=load_products(catalog),
        logs=directory,
        settings={},
        seed=1,
        seconds=4.0,
        least_faults=1,
    )


@pytest.fixture(scope="module")
def kafka(cluster: KafkaCluster) -> LocalKafka:
    """The cluster, for the fixtures that want a broker."""
    return LocalKafka(None, cluster.bootstrap_servers, "given", cluster.description)


@pytest.fixture
async def producer(kafka: LocalKafka) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that tries again without writing twice."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers.split(","),
        enable_idempotence=True,
        request_timeout_ms=120_000,
    ) as started:
        yield started


@pytest.fixture
def settings(settings: dict[str, object]) -> dict[str, object]:
    """A worker that keeps everything three times and has little in hand."""
    small = {"max_in_flight_products": 400, "max_poll_records": 200, "max_batch_products": 64}
    return settings | small | {"replication_factor": 3, "partitions": PARTITIONS}


@pytest.mark.parametrize(
    "cell",
    [
        Cell("kill9", "worker", True),
        Cell("sigstop", "worker", False),
        Cell("kill9", "broker", True),
    ],
    ids=lambda cell: cell.name,
)
def test_nothing_is_lost_twice_or_out_of_order(bench: Bench, cell: Cell) -> None:
    result = run_cell(bench, cell, PRODUCTS)
    assert result.verdict == Verdict(), "\n".join(result.details)
    assert result.faults >= bench.least_faults
    assert result.products == PRODUCTS
    assert not result.oddities


async def test_the_coordinator_goes_and_outputs_that_the_others_refuse_are_waited_for(
    cluster: KafkaCluster,
    settings: dict[str, object],
    worker_topics: WorkerTopics,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        # A broker that has not heard yet of the topics that another one has made is asked again.
        assert "cannot be checked" not in caplog.text
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            # With one of three away the leaders answer NotEnoughReplicas, and go on living.
            all_three = {"min.insync.replicas": "3"}
            alter_topic(cluster.bootstrap_servers, worker_topics.categories_topic, all_three)
            missing = cluster.brokers[_coordinator(cluster, group) - 1]
            await asyncio.to_thread(missing.terminate)
            try:
                await says(run, "take longer than 5 s")
            finally:
                await asyncio.to_thread(missing.start)
            await goes_on(run, deadline_s=120)
        await group.caught_up()
        assert not run.hot_path.not_ready()

    assert not (await ledger.audit(partitions=PARTITIONS)).places


def _coordinator(cluster: KafkaCluster, group: Group) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 3})
    described = admin.describe_consumer_groups([group.group_id])[group.group_id].result(30)
    number: int = described.coordinator.id
    return number
