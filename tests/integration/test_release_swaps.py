"""Releases swapped in a running worker, under load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from models.noop import noop_release
from models.release import read_release
from models.taxonomy import Taxonomy
from tests.ledger import Outputs
from tests.services import WorkerTopics
from tests.streams import Feeder, Group, Inputs, until
from worker.announce import publish
from worker.kafka import KafkaConfig
from worker.local.kafka import LocalKafka
from worker.local.worker_process import WorkerProcess
from worker.topics import TopicsConfig, ensure_topics

_SWAPS = 6


@pytest.fixture
def releases(tmp_path: Path, taxonomy: Taxonomy) -> list[Path]:
    """Two releases that a worker is made to go back and forth between."""
    return [noop_release(tmp_path / v, taxonomy, version=v).directory for v in ("1", "2")]


async def test_swaps_under_load_lose_and_invent_nothing(
    kafka: LocalKafka,
    worker_process: Callable[..., WorkerProcess],
    settings: dict[str, object],
    worker_topics: WorkerTopics,
    inputs: Inputs,
    group: Group,
    read_outputs: Callable[[], Awaitable[Outputs]],
    releases: list[Path],
) -> None:
    config = KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)
    names = TopicsConfig(
        input=worker_topics.input_topic,
        categories=worker_topics.categories_topic,
        attributes=worker_topics.attributes_topic,
        dead_letters=worker_topics.dead_letters_topic,
        control=worker_topics.control_topic,
    )

    async def announce(number: int) -> str:
        release = read_release(releases[number % 2])
        await publish(release, str(release.directory), config, names)
        return release.id

    await ensure_topics(config, names)
    await announce(0)
    worker = worker_process(**settings)
    async with Feeder(inputs, group):
        for swap in range(1, _SWAPS + 1):
            wanted = await announce(swap)

            def why_not(wanted: str = wanted) -> str | None:
                active = worker.status()["release"]["active"]["release"]
                return None if active == wanted else f"{active} is active"

            await until(why_not, 60.0, f"swap {swap} to {wanted}")
    await group.caught_up(worker)

    outputs = await read_outputs()
    assert not outputs.dead_letters
    seen = set()
    for records in (outputs.categories, outputs.attributes):
        found = [orjson.loads(record.value or b"") for record in records]
        places = {(each["input"]["partition"], each["input"]["offset"]) for each in found}
        assert places == set(inputs.events)
        seen |= {each["release"] for each in found}
    assert seen == {"noop/1", "noop/2"}
