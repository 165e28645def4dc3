"""Releases swapped in a running worker, under load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

import orjson

from models.release import Release
from tests.catalog import products
from tests.ledger import Ledger
from tests.polling import until
from tests.services import Record
from tests.streams import Feeder, Group, Inputs, Place
from worker.announce import publish
from worker.kafka import KafkaConfig
from worker.local.worker_process import WorkerProcess
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

_SWAPS = 6
_NUMBERED_FROM = 1_000_000  # far from the feeder's products


async def test_swaps_under_load_lose_and_invent_nothing(
    config: KafkaConfig,
    names: TopicsConfig,
    worker_process: Callable[..., WorkerProcess],
    settings: dict[str, object],
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    release: Callable[[str], Release],
) -> None:
    """A worker is made to go back and forth between two releases."""
    releases = [release("1"), release("2")]

    async def announce(number: int) -> str:
        chosen = releases[number % 2]
        await publish(chosen, str(chosen.directory), config, names)
        return chosen.id

    await ensure_topics(config, names)
    await announce(0)
    worker = worker_process(**settings, partitions=names.partitions)
    # A product that came while a release was active and was through before the next was announced.
    sent_under: dict[Place, str] = {}
    async with Feeder(inputs, group):
        for swap in range(1, _SWAPS + 1):
            wanted = await announce(swap)
            await until(partial(_lacks_active, worker, wanted), 60, f"swap {swap} to {wanted}")
            (place,) = await inputs.send(products(1, start=_NUMBERED_FROM + swap))
            sent_under[place] = wanted
            await until(partial(_lacks_delivered, worker, place), 60, f"product after swap {swap}")
    await group.caught_up(worker)

    outputs = await ledger.read()
    assert not outputs.dead_letters
    for records in (outputs.categories, outputs.attributes):
        released = _releases_by_place(records)
        assert set(released) == set(inputs.events)
        for place, wanted in sent_under.items():
            assert released[place] == {wanted}


def _lacks_active(worker: WorkerProcess, release: str) -> str | None:
    active = worker.status()["release"]["active"]["release"]
    return None if active == release else f"{active} is active"


def _lacks_delivered(worker: WorkerProcess, place: Place) -> str | None:
    partition, offset = place
    for lane in worker.status()["hot_path"]["assigned"]:
        if lane["partition"] == partition and (lane["delivered"] or 0) > offset:
            return None
    return f"offset {offset} of partition {partition} is not delivered"


def _releases_by_place(records: Iterable[Record]) -> dict[Place, set[str]]:
    found: defaultdict[Place, set[str]] = defaultdict(set)
    for record in records:
        value = orjson.loads(record.value or b"")
        found[value["input"]["partition"], value["input"]["offset"]].add(value["release"])
    return found
