"""Workers that stop, join, leave, freeze and are killed under load: nothing lost, in both kinds of
delivery; nothing repeated with exactly once, and little with at least once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger import Ledger
from tests.polling import until
from tests.streams import Feeder, Group, Inputs, lacks_results, make_topic, metric
from worker.local.kafka import LocalKafka
from worker.local.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]

PARTITIONS = 6
# Little in hand, so that a worker is always in the middle of something.
LOADED = {
    "max_poll_records": 200,
    "max_in_flight_products": 400,
    "max_batch_products": 64,
    "commit_interval_ms": 200,
}
# The shortest session that brokers allow: a killed worker's partitions come free when it ends.
SHORT_SESSION = {
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 1_000,
    "drain_timeout_s": 6,
}


@pytest.fixture
def inputs(kafka: LocalKafka, inputs: Inputs) -> Inputs:
    """As everywhere, but the topic is there before the first worker is."""
    make_topic(kafka.bootstrap_servers, inputs.topic, PARTITIONS)
    return inputs


def _lacks_partitions(worker: WorkerProcess, num: int) -> str | None:
    lanes = worker.status()["hot_path"]["assigned"]
    return None if len(lanes) == num else f"{len(lanes)} partitions open, wanted {num}"


def _epochs(worker: WorkerProcess) -> set[int]:
    return {lane["epoch"] for lane in worker.status()["hot_path"]["assigned"]}


def _lacks_newer_epochs(worker: WorkerProcess, than: set[int]) -> str | None:
    lanes = _epochs(worker)
    newer = lanes and min(lanes) > max(than)
    return None if newer else f"epochs {lanes}, wanted newer than {than}"


async def test_sigterm_under_load_drains_and_the_next_worker_goes_on(
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    first = worker_process(release=noop, **LOADED, delivery=delivery)
    async with Feeder(inputs, group):
        await until(lambda: lacks_results(first, 2_000), 60, "under load")
        first.terminate()
        # Five seconds more than the drain may take by default, for the rest of the process.
        assert first.wait(30) == 0
    stopped_at = group.offsets()
    assert sum(end - committed for committed, end in stopped_at.values()) > 0, "was not under load"

    next_one = worker_process(release=noop, **LOADED, delivery=delivery)
    await group.caught_up(next_one)

    repeats = await ledger.audit()
    # All that was sent was committed before the first worker left, whichever the delivery.
    assert not repeats.places


async def test_a_second_worker_joins_and_leaves_under_load(
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    first = worker_process(release=noop, **LOADED, delivery=delivery)
    async with Feeder(inputs, group):
        await until(lambda: lacks_results(first, 1_000), 60, "under load")
        second = worker_process(release=noop, **LOADED, delivery=delivery)
        for worker in (first, second):
            await until(
                lambda worker=worker: _lacks_partitions(worker, PARTITIONS // 2), 60, "shared"
            )
            done = int(metric(worker, "results_total"))
            await until(
                lambda worker=worker, done=done: lacks_results(worker, done + 500),
                60,
                "both at work",
            )
        second.terminate()
        assert second.wait(30) == 0
        await until(lambda: _lacks_partitions(first, PARTITIONS), 60, "all with the first")
        done = int(metric(first, "results_total"))
        await until(lambda: lacks_results(first, done + 500), 60, "at work on all")

    await group.caught_up(first)

    repeats = await ledger.audit()
    # What a worker had sent and could not commit before it lost a partition: at most what it may
    # have in hand, once for each of the two rebalances.
    allowed = {"exactly_once": 0, "at_least_once": 2 * LOADED["max_in_flight_products"]}
    assert len(repeats.places) <= allowed[delivery]


async def test_a_killed_worker_loses_nothing(
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    first = worker_process(release=noop, **LOADED, delivery=delivery, **SHORT_SESSION)
    async with Feeder(inputs, group):
        await until(lambda: lacks_results(first, 2_000), 60, "under load")
        first.kill()
    committed = {partition: offset for partition, (offset, _) in group.offsets().items()}

    next_one = worker_process(release=noop, **LOADED, delivery=delivery, **SHORT_SESSION)
    await group.caught_up(next_one)

    repeats = await ledger.audit()
    if delivery == "exactly_once":
        assert not repeats.places
    # Only what was sent after the last commit.
    assert all(offset >= committed[partition] for partition, offset in repeats.places)


async def test_a_frozen_worker_is_replaced_and_thawed_it_harms_nobody(
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    delivery: str,
) -> None:
    frozen = worker_process(release=noop, **LOADED, delivery=delivery, **SHORT_SESSION)
    async with Feeder(inputs, group):
        other = worker_process(release=noop, **LOADED, delivery=delivery, **SHORT_SESSION)
        for worker in (frozen, other):
            await until(
                lambda worker=worker: _lacks_partitions(worker, PARTITIONS // 2), 60, "shared"
            )
            done = int(metric(worker, "results_total"))
            await until(
                lambda worker=worker, done=done: lacks_results(worker, done + 500), 60, "at work"
            )
        epochs = _epochs(frozen)
        frozen.child.send_signal(signal.SIGSTOP)
        try:
            await until(lambda: _lacks_partitions(other, PARTITIONS), 60, "session over")
            done = int(metric(other, "results_total"))
            await until(lambda: lacks_results(other, done + 500), 60, "at work on all")
        finally:
            frozen.child.send_signal(signal.SIGCONT)
        await until(lambda: _lacks_newer_epochs(frozen, epochs), 60, "back in the group")
        done = int(metric(frozen, "results_total"))
        await until(lambda: lacks_results(frozen, done + 500), 60, "at work again")

    await group.caught_up(frozen, other)

    repeats = await ledger.audit()
    # What either had in hand at each of the two rebalances.
    allowed = {"exactly_once": 0, "at_least_once": 4 * LOADED["max_in_flight_products"]}
    assert len(repeats.places) <= allowed[delivery]
