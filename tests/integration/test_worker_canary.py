"""A canary answers its share of the products, and nobody is the worse for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from models.release import read_release
from models.taxonomy import Taxonomy
from tests.brittle import POISON, UNPREPARABLE, BrittleEncoder, brittle
from tests.catalog import product, products, seller_key
from tests.factories import record
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger, Outputs
from tests.polling import until
from tests.services import WorkerTopics
from tests.streams import Group, Inputs, Place, make_topic
from worker.announce import publish, retract, tell_return
from worker.announcement import CanaryReturn
from worker.assemble import Assembler
from worker.kafka import KafkaConfig
from worker.local.worker_process import WorkerProcess
from worker.rollout import Sample
from worker.serving import Serving
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

SHARE = 0.3
BOTH = ("noop/1", "noop/2")


@pytest.fixture
def inputs(settings: dict[str, object], inputs: Inputs) -> Inputs:
    """To be filled before the worker starts."""
    make_topic(str(settings["bootstrap_servers"]), inputs.topic, partitions=4)
    return inputs


def of_the_canary(inputs: Inputs) -> set[Place]:
    """Which inputs are the canary's."""
    chosen = Sample("canary noop/2", SHARE)
    return {
        place
        for place, (key, value) in inputs.events.items()
        if chosen.has(record(key=key, value=value))
    }


def answered_by(outputs: Outputs, release: str) -> set[Place]:
    """The inputs whose categories a release gave."""
    events = [orjson.loads(each.value or b"") for each in outputs.categories]
    return {
        (event["input"]["partition"], event["input"]["offset"])
        for event in events
        if event["release"] == release
    }


async def test_a_share_of_the_keys_is_the_canarys(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.take_release("canary", load_serving(second), SHARE)
        await inputs.send(products(1_000))
        await group.caught_up()
        status = run.hot_path.status()["canary"]

    outputs = await ledger.read()
    assert not ledger.check(outputs, releases=BOTH).places
    expected = of_the_canary(inputs)
    assert 100 < len(expected) < 500
    assert answered_by(outputs, "noop/2") == expected
    assert (status["release"], status["share"]) == ("noop/2", SHARE)
    assert (status["products"], status["failed"]) == (len(expected), 0)
    done = sum(
        sample(run.metrics, "canary_products_total", outcome=outcome)
        for outcome in ("assigned", "review")
    )
    assert done == len(expected)


async def test_what_a_canary_fails_on_is_answered_by_the_active_release(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    ended: list[tuple[Serving, str]] = []
    events = list(products(1_000))
    mine = Sample("canary noop/2", SHARE)
    owned = [n for n, (key, value) in enumerate(events) if mine.has(record(key=key, value=value))]
    # One of each: fewer than end a canary.
    poisonous, unpreparable = owned[3], owned[9]
    events[poisonous] = (seller_key(poisonous), product(poisonous, title=POISON))
    events[unpreparable] = (seller_key(unpreparable), product(unpreparable, title=UNPREPARABLE))

    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.rollout.on_return = lambda serving, why: ended.append((serving, why))
        run.hot_path.take_release("canary", brittle(second, BrittleEncoder()), SHARE)
        places = await inputs.send(events)
        await group.caught_up()
        failed = sample(run.metrics, "canary_products_total", outcome="failed")

    outputs = await ledger.read()
    assert not ledger.check(outputs, releases=BOTH).places
    assert not ended
    assert failed == 2
    rescued = {places[poisonous], places[unpreparable]}
    assert answered_by(outputs, "noop/2") == of_the_canary(inputs) - rescued


async def test_a_canary_that_fails_on_everything_is_given_up_and_harms_nobody(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    ended: list[str] = []
    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.rollout.on_return = lambda serving, why: ended.append(why)
        broken = brittle(second, BrittleEncoder(fails_always=True))
        run.hot_path.take_release("canary", broken, SHARE)
        await inputs.send(products(1_000))
        await group.caught_up()
        status = run.hot_path.status()

    assert not (await ledger.audit()).places
    assert len(ended) == 1
    assert "allowed is a share of 0.01" in ended[0]
    assert status["canary"] is None
    assert status["breaker"] == {"state": "closed", "why": None}


async def test_a_canary_that_leaves_all_to_review_is_given_up(
    settings: dict[str, object],
    noop: Path,
    second: Path,
    taxonomy: Taxonomy,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    shy = load_serving(second)
    assert shy.predictor.category is not None
    assert shy.predictor.attribute is not None
    categories = shy.predictor.category.categories
    never = np.full(len(categories), 2, dtype=np.float32)
    labels = shy.predictor.attribute.labels
    shy = replace(shy, assembler=Assembler("noop/2", taxonomy, categories, labels, never))
    ended: list[str] = []

    async with HotPathRun(settings, load_serving(noop)) as run:
        run.hot_path.rollout.on_return = lambda serving, why: ended.append(why)
        run.hot_path.take_release("canary", shy, SHARE)
        await inputs.send(products(3_000))
        await group.caught_up()

    assert len(ended) == 1
    assert ended[0].startswith("it left 100.0% of its last ")
    assert not (await ledger.audit(releases=BOTH)).places


async def test_every_worker_follows_the_control_topic(
    settings: dict[str, object],
    worker_topics: WorkerTopics,
    worker_process: Callable[..., WorkerProcess],
    noop: Path,
    second: Path,
) -> None:
    kafka = KafkaConfig(bootstrap_servers=str(settings["bootstrap_servers"]))
    names = TopicsConfig(
        input=worker_topics.input_topic,
        categories=worker_topics.categories_topic,
        attributes=worker_topics.attributes_topic,
        dead_letters=worker_topics.dead_letters_topic,
        control=worker_topics.control_topic,
    )
    await ensure_topics(kafka, names)
    await publish(read_release(noop), str(noop), kafka, names)
    workers = [worker_process(), worker_process()]
    canary = read_release(second)

    async def all_say(what: str, wanted: object) -> None:
        def why_not() -> str | None:
            said = [worker.status()["release"]["canary"] for worker in workers]
            found = [None if each is None else each[what] for each in said]
            return None if all(each == wanted for each in found) else str(said)

        await until(why_not, 60, f"{what} of the canary is {wanted}")

    announced = await publish(canary, str(second), kafka, names, role="canary", share=0.5)
    await all_say("note", "serving")
    assert all(worker.status()["hot_path"]["canary"]["share"] == 0.5 for worker in workers)

    await retract("canary", kafka, names)
    await all_say("serving", None)
    # Of another announcement: nobody is to care.
    stale = CanaryReturn(
        manifest_sha256=announced.manifest_sha256, announced_at="before", reason="it failed"
    )
    await tell_return(stale, kafka, names.control)
    await publish(canary, str(second), kafka, names, role="canary", share=0.25)
    await all_say("note", "serving")
    assert all(worker.status()["hot_path"]["canary"]["share"] == 0.25 for worker in workers)
    active = [worker.status()["release"]["active"]["release"] for worker in workers]
    assert active == ["noop/1"] * 2
