"""A release with a new version of the taxonomy takes effect in a running worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import redis

from models.noop import noop_release
from models.release import Release
from models.taxonomy import Taxonomy
from tests.catalog import products, small_taxonomy
from tests.ledger import Ledger, Outputs, audit
from tests.polling import until
from tests.services import Record
from tests.streams import Group, Inputs
from worker.announce import publish
from worker.kafka import KafkaConfig
from worker.local.redis import LocalRedis
from worker.local.worker_process import WorkerProcess
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

_PRODUCTS = 600
# Gifts have no attribute in the old version, and hats no color.
_NEW_ATTRIBUTE = {"name": "Occasion", "values": ["birthday", "wedding"]}
_NEW_RELEVANT = {
    "gifts": {"Occasion": ["birthday", "wedding"]},
    "hats": {"Color": ["gold"]},
}


def _next_version(taxonomy: Taxonomy) -> Taxonomy:
    raw = orjson.loads(taxonomy.to_json())
    raw["version"] = "2025-02"
    raw["attributes"].append(_NEW_ATTRIBUTE)
    raw["relevant"] |= _NEW_RELEVANT
    return Taxonomy.from_json(orjson.dumps(raw), source="next.json")


@pytest.fixture
def releases(tmp_path: Path) -> list[Release]:
    """One of each version of the taxonomy."""
    versions = [small_taxonomy(), _next_version(small_taxonomy())]
    return [
        noop_release(tmp_path / str(number), taxonomy, version=str(number))
        for number, taxonomy in enumerate(versions, start=1)
    ]


async def test_a_new_attribute_and_new_masks_take_effect_without_a_restart(
    config: KafkaConfig,
    names: TopicsConfig,
    redis_server: LocalRedis,
    worker_process: Callable[..., WorkerProcess],
    settings: dict[str, object],
    inputs: Inputs,
    group: Group,
    group_id: str,
    ledger: Ledger,
    releases: list[Release],
) -> None:
    await ensure_topics(config, names)
    before, after = releases
    await publish(before, str(before.directory), config, names)
    worker = worker_process(
        **settings, partitions=names.partitions, redis_url=redis_server.url, mask_prefix=group_id
    )
    sent: list[Inputs] = []
    for release in releases:
        if sent:
            await publish(release, str(release.directory), config, names)

        def why_not(wanted: Release = release) -> str | None:
            active = worker.status()["release"]["active"]
            says = (active["release"], active["taxonomy_version"])
            return None if says == (wanted.id, wanted.taxonomy.version) else f"active: {says}"

        await until(why_not, 60.0, f"the swap to {release.id}")
        part = replace(inputs, events={})
        await part.send(products(_PRODUCTS, start=_PRODUCTS * len(sent)))
        await group.caught_up(worker)
        sent.append(part)

    outputs = await ledger.read()
    for release, part in zip(releases, sent, strict=True):
        of_release = Outputs(
            _of(outputs.categories, release.id), _of(outputs.attributes, release.id), []
        )
        audit(part, of_release, release.taxonomy, releases=[release.id], partitions=3, schemas=True)
    assert not outputs.dead_letters
    assert _attributes_of(outputs, before, "gifts") == set()
    assert _attributes_of(outputs, after, "gifts") == {"Occasion"}
    assert "Color" not in _attributes_of(outputs, before, "hats")
    assert _attributes_of(outputs, after, "hats") == {"Color"}

    starts = [f"{group_id}:{each.taxonomy.version}-" for each in releases]
    with redis.Redis.from_url(redis_server.url) as client:
        keys = [key.decode() for key in client.scan_iter(f"{group_id}:*")]
    assert all(any(key.startswith(start) for key in keys) for start in starts)


def _of(records: list[Record], release: str) -> list[Record]:
    return [each for each in records if orjson.loads(each.value or b"")["release"] == release]


def _attributes_of(outputs: Outputs, release: Release, category: str) -> set[str]:
    """Names of the attributes that products of a category were given by a release."""
    events = [orjson.loads(each.value or b"") for each in _of(outputs.attributes, release.id)]
    chosen = [event for event in events if event["category"]["id"] == category]
    assert chosen, f"{release.id} put no product into {category}"
    return {label["attribute"] for event in chosen for label in event["attributes"]}
