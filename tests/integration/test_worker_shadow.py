"""A shadow release scores products again, beside what answers them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator

from tests.brittle import BrittleEncoder, brittle
from tests.catalog import products
from tests.factories import record
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger
from tests.polling import until
from tests.services import TopicReader, Topics
from tests.streams import Group, Inputs, make_topic
from worker.rollout import Sample

NUM = 500
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "shadow.v1.json"


@pytest.fixture
def shadow_topic(topics: Topics) -> str:
    return topics("shadow", partitions=3)


@pytest.fixture
def settings(settings: dict[str, object], shadow_topic: str) -> dict[str, object]:
    return settings | {"shadow_topic": shadow_topic}


@pytest.fixture
def inputs(settings: dict[str, object], inputs: Inputs) -> Inputs:
    """To be filled before the worker starts."""
    make_topic(str(settings["bootstrap_servers"]), inputs.topic, partitions=4)
    return inputs


async def settled(run: HotPathRun, num: int) -> None:
    """Wait until the shadow has done with so many products."""

    def why_not() -> str | None:
        done = {
            outcome: sample(run.metrics, "shadow_products_total", outcome=outcome)
            for outcome in ("compared", "dropped", "failed", "unsent")
        }
        return None if sum(done.values()) >= num else str(done)

    await until(why_not, 60, f"{num} products of the shadow")


async def test_every_product_is_compared_and_answered_by_the_active_release_alone(
    settings: dict[str, object],
    shadow_topic: str,
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    read_all: TopicReader,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.take_release("shadow", load_serving(second), 1.0)
        await inputs.send(products(NUM))
        await group.caught_up()
        await settled(run, NUM)
        assert sample(run.metrics, "shadow_products_total", outcome="compared") == NUM

    assert not (await ledger.audit()).places
    records = await read_all(shadow_topic)
    events = [orjson.loads(each.value or b"") for each in records]
    validator = Draft202012Validator(orjson.loads(SCHEMA.read_bytes()))
    for event in events:
        validator.validate(event)
    places = [(event["input"]["partition"], event["input"]["offset"]) for event in events]
    assert sorted(places) == sorted(inputs.events)
    assert {(e["active_release"], e["shadow_release"]) for e in events} == {("noop/1", "noop/2")}
    for each, event in zip(records, events, strict=True):
        same = (
            event["active"]["categories"]["category"] == event["shadow"]["categories"]["category"]
        )
        assert event["same_category"] == same
        assert each.key == inputs.events[event["input"]["partition"], event["input"]["offset"]][0]
    counted = {
        what: sample(run.metrics, "shadow_categories_total", **{"is": what})
        for what in ("same", "other")
    }
    assert counted["same"] == sum(event["same_category"] for event in events)
    assert sum(counted.values()) == NUM


async def test_a_shadow_that_fails_harms_nobody(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        broken = brittle(second, BrittleEncoder(fails_always=True))
        run.hot_path.take_release("shadow", broken, 1.0)
        await inputs.send(products(NUM))
        await group.caught_up()
        await settled(run, NUM)
        assert sample(run.metrics, "shadow_products_total", outcome="failed") == NUM
        assert "the device is gone" in run.hot_path.status()["shadow"]["last_error"]
        assert run.hot_path.not_ready() == []

    assert not (await ledger.audit()).places


async def test_a_share_is_compared_and_no_more_once_it_is_taken_back(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.take_release("shadow", load_serving(second), 0.2)
        await inputs.send(products(NUM))
        await group.caught_up()
        chosen = Sample("shadow", 0.2)
        expected = sum(chosen.has(record(key=key)) for key, _ in inputs.events.values())
        assert 0 < expected < NUM
        await settled(run, expected)
        assert run.hot_path.status()["shadow"]["share"] == 0.2
        run.hot_path.take_release("shadow", None)
        assert run.hot_path.status()["shadow"] is None
        await inputs.send(products(NUM, start=NUM))
        await group.caught_up()
        compared = sample(run.metrics, "shadow_products_total", outcome="compared")

    assert compared == expected


async def test_nothing_is_scored_again_while_a_death_is_not_cleared_up(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.take_release("shadow", load_serving(second), 1.0)
        # As of an offset that is still to come.
        lane = next(iter(run.lanes.values()))
        lane.deaths[10_000] = 1
        await inputs.send(products(NUM))
        await group.caught_up()
        await settled(run, NUM)
        assert sample(run.metrics, "shadow_products_total", outcome="dropped") == NUM
        lane.deaths.clear()
        await inputs.send(products(NUM, start=NUM))
        await group.caught_up()
        await settled(run, 2 * NUM)
        assert sample(run.metrics, "shadow_products_total", outcome="compared") == NUM
