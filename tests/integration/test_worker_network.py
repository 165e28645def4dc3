"""The network between worker and broker fails, and the broker's disk is full: nothing is lost.

The worker reaches the broker through a proxy; the test itself does not.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient

from tests.hot_path_runs import HotPathRun, goes_on, load_serving, sample, says
from tests.ledger import Ledger
from tests.polling import until
from tests.proxy import Proxy
from tests.streams import Feeder, Group, Inputs, make_topic
from worker.local.java import find_java
from worker.local.kafka import LocalKafka
from worker.local.kafka_jars import kafka_jars
from worker.local.kafka_server import KafkaServer
from worker.local.ports import ReservedPort

PARTITIONS = 3
IN_HAND = 400
BACKLOG = 1_000
# Little in hand, so that the worker is always in the middle of something.
LOADED = {"max_in_flight_products": IN_HAND, "max_poll_records": 200, "max_batch_products": 64}
SHORT_SESSION = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 1_000, "drain_timeout_s": 6}


@dataclass(frozen=True)
class Site:
    """A broker, and the network that the worker reaches it by."""

    server: KafkaServer
    network: Proxy


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A broker of this module's own."""
    port = ReservedPort()
    with Proxy(port.address) as network:
        server = KafkaServer(
            kafka_jars(os.environ, print),
            find_java(os.environ),
            os.environ,
            proxied=(port, network.address),
        )
        try:
            yield Site(server, network)
        finally:
            server.close()
    port.close()


@pytest.fixture(scope="module")
def kafka(site: Site) -> LocalKafka:
    """The same broker as the test reaches it: directly."""
    return LocalKafka(site.server, site.server.bootstrap_servers, "maven", "Apache Kafka")


@pytest.fixture
def network(site: Site) -> Iterator[Proxy]:
    """What is between the worker and the broker; good again after the test."""
    yield site.network
    site.network.heal()


@pytest.fixture
async def producer(kafka: LocalKafka) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that tries again without writing twice."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        request_timeout_ms=120_000,
    ) as started:
        yield started


@pytest.fixture
def settings(settings: dict[str, object], network: Proxy) -> dict[str, object]:
    """As everywhere, but through the proxy."""
    return settings | LOADED | {"bootstrap_servers": network.address}


@pytest.fixture
def inputs(kafka: LocalKafka, inputs: Inputs) -> Inputs:
    """As everywhere, but the topic is there before the worker is."""
    make_topic(kafka.bootstrap_servers, inputs.topic, PARTITIONS)
    return inputs


def epochs(run: HotPathRun) -> dict[int, int]:
    return {lane["partition"]: lane["epoch"] for lane in run.hot_path.status()["assigned"]}


async def outputs_on_their_way(network: Proxy, run: HotPathRun) -> None:
    """Slow the network and wait until the worker waits for it: else it may have nothing to say."""
    network.slow(down_s=1.0)

    def why_not() -> str | None:
        slowest_s = run.hot_path.status()["delivery"]["slowest_s"]
        return None if 0 < slowest_s < 0.5 else f"the slowest takes {slowest_s} s"

    await until(why_not, 30, "outputs on their way")


def members(kafka: LocalKafka, group_id: str) -> int:
    """How many the broker counts in the group."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 3})
    return len(admin.describe_consumer_groups([group_id])[group_id].result(30).members)


async def test_connections_that_are_cut_again_and_again(
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    num_cuts = 4
    async with HotPathRun(settings | {"delivery": delivery}, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            for _ in range(num_cuts):
                network.cut()
                await goes_on(run)
        await group.caught_up()
        assert not run.hot_path.not_ready()

    repeats = await ledger.audit()
    allowed = {"exactly_once": 0, "at_least_once": num_cuts * IN_HAND}
    assert len(repeats.places) <= allowed[delivery]


async def test_brokers_that_are_away_when_the_group_is_joined_are_waited_for(
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    given = settings | {"delivery": delivery}
    run = HotPathRun(given, load_serving(noop), checked=network.refuse)
    entering = asyncio.create_task(run.__aenter__())

    def why_not() -> str | None:
        reasons = [] if run._hot_path is None else run.hot_path.not_ready()
        return None if any("trying again" in each for each in reasons) else f"it says {reasons}"

    await until(why_not, 60, "a worker that tries again")
    network.heal()
    await entering
    try:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
        await group.caught_up()
    finally:
        await run.__aexit__()
    assert not (await ledger.audit()).places


async def test_a_slow_network_costs_time_and_nothing_else(
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            before = epochs(run)
            network.slow(up_s=0.2, down_s=0.2)
            await goes_on(run, 400)
            assert epochs(run) == before
            network.cut()
            await goes_on(run, 200)
            network.heal()
            await goes_on(run)
        await group.caught_up()

    assert not (await ledger.audit()).places


async def test_silence_shorter_than_the_session_is_said_and_waited_for(
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    async with HotPathRun(settings | {"delivery": delivery}, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            before = epochs(run)
            await outputs_on_their_way(network, run)
            network.stall()
            await says(run, "longer than 5 s")
            network.heal()
            await goes_on(run)
        await group.caught_up()
        assert not run.hot_path.not_ready()
        assert epochs(run) == before

    assert sample(run.metrics, "lost_lanes_total") == 0
    assert not (await ledger.audit()).places


async def test_silence_longer_than_the_session_costs_the_partitions_for_a_while(
    kafka: LocalKafka,
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    async with HotPathRun(settings | SHORT_SESSION, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            before = max(epochs(run).values())
            network.stall()
            await until(
                lambda: "still a member" if members(kafka, group.group_id) else None,
                30,
                "the end of its session",
            )
            network.heal()
            await goes_on(run)
        await group.caught_up()
        assert min(epochs(run).values()) > before

    assert not (await ledger.audit()).places


async def test_lanes_are_closed_in_time_while_the_broker_is_away_and_leave_nothing_open(
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    before = asyncio.all_tasks()
    # The broker will still count it as a member for one session.
    async with HotPathRun(settings | SHORT_SESSION, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            await outputs_on_their_way(network, run)
            network.refuse()
        try:
            async with asyncio.timeout(20):  # the drain and what the consumer takes to leave
                await run.hot_path.stop()
        finally:
            network.heal()
    assert not {task for task in asyncio.all_tasks() - before if "aiokafka/producer" in str(task)}

    async with HotPathRun(settings, load_serving(noop)):
        await group.caught_up()
    assert not (await ledger.audit()).places


async def test_a_full_disk_ends_the_broker_and_nothing_else(
    site: Site,
    network: Proxy,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    # The only replica: tests/integration/test_worker_broker.py says why not exactly once.
    async with HotPathRun(settings | {"delivery": "at_least_once"}, load_serving(noop)) as run:
        async with Feeder(inputs, group, backlog=BACKLOG):
            await goes_on(run)
            await outputs_on_their_way(network, run)
            # No file may become longer than it is: what the broker writes fails in the middle.
            resource.prlimit(site.server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            await until(
                lambda: "it runs" if site.server.is_running else None,
                60,
                "the end of a broker that cannot write",
            )
            # By itself, because all its log directories have failed.
            assert site.server._launched.poll() == 1
            await says(run, "longer than 5 s")
            site.server.kill()
            network.heal()
            await asyncio.to_thread(site.server.start)
            await goes_on(run, deadline_s=120)
        await group.caught_up()
        assert not run.hot_path.not_ready()

    # At most what was in hand when the broker went, and, should the group have begun anew, what was
    # delivered since the last commit: one each second, over a network of a second's delay.
    assert len((await ledger.audit()).places) <= 4 * IN_HAND
