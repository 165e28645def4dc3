"""Canaries and shadows on a real control topic: given up by all, overtaken, taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer

from models.release import Release
from tests.control_reader import Control
from tests.hot_path_runs import sample
from worker.announce import publish, retract
from worker.announcement import CanaryReturn, role_key
from worker.kafka import KafkaConfig
from worker.serving import Serving
from worker.topics_config import TopicsConfig


def canary_of(control: Control) -> Serving:
    serving, _ = control.taken["canary"][-1]
    assert serving is not None
    return serving


async def test_what_one_worker_finds_wanting_all_give_up_for_good(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    active, canary = release("1"), release("2")
    await publish(active, str(active.directory), config, names)
    await publish(canary, str(canary.directory), config, names, role="canary", share=0.2)
    workers = [control(), control()]
    for worker in workers:
        await worker.service.start()
    for worker in workers:
        await worker.until(lambda worker=worker: worker.last("canary") == "noop/2")
        assert worker.taken["canary"][-1][1] == 0.2

    workers[0].service.return_canary(canary_of(workers[0]), "it failed on too many")
    assert workers[0].last("canary") is None
    await workers[1].until(lambda: workers[1].last("canary") is None)
    for worker in workers:
        assert worker.status["canary"]["returned"] == "it failed on too many"
        assert worker.last("active") == "noop/1"
    assert sample(workers[0].metrics, "returned_canaries_total") == 1

    # One that starts later knows of it; another announcement is another try.
    late = control()
    await late.service.start()
    await late.until(lambda: late.last("active") == "noop/1")
    assert late.status["canary"]["returned"] == "it failed on too many"
    assert late.taken["canary"] == []
    await publish(canary, str(canary.directory), config, names, role="canary", share=0.1)
    for worker in (*workers, late):
        await worker.until(lambda worker=worker: worker.last("canary") == "noop/2")


async def test_a_failing_canary_does_not_end_the_one_announced_after_it(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    active, first, second = release("1"), release("2"), release("3")
    worker = control()
    worker.hold_up(second.directory)
    await worker.service.start()
    await publish(active, str(active.directory), config, names)
    await publish(first, str(first.directory), config, names, role="canary", share=0.2)
    await worker.until(lambda: worker.last("canary") == "noop/2")
    await publish(second, str(second.directory), config, names, role="canary", share=0.3)
    await worker.held_up(second.directory)

    worker.service.return_canary(canary_of(worker), "it failed on too many")
    assert worker.last("canary") is None
    assert worker.status["canary"]["returned"] is None
    worker.let_go(second.directory)
    await worker.until(lambda: worker.last("canary") == "noop/3")


async def test_a_return_of_another_announcement_changes_nothing(
    config: KafkaConfig,
    names: TopicsConfig,
    producer: AIOKafkaProducer,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    active, canary = release("1"), release("2")
    await publish(active, str(active.directory), config, names)
    made = await publish(canary, str(canary.directory), config, names, role="canary", share=0.2)
    worker = control()
    await worker.service.start()
    await worker.until(lambda: worker.last("canary") == "noop/2")
    ended = CanaryReturn(
        manifest_sha256=made.manifest_sha256, announced_at=made.announced_at, reason="it failed"
    )
    stale = replace(ended, announced_at="2020-01-01T00:00:00+00:00")

    for each in (ended, stale):  # read together, the last of the key counts
        await producer.send_and_wait(names.control, each.to_json(), key=b"canary-return")
    await publish(active, str(active.directory), config, names, role="shadow", share=0.5)
    await worker.until(lambda: worker.last("shadow") == "noop/1")
    # Whether the first was read by itself or not: the second did not undo it.
    returned = worker.status["canary"]["returned"]
    assert (worker.last("canary"), returned) in (("noop/2", None), (None, "it failed"))


async def test_ending_one_does_not_wait_for_the_loading_of_another(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    active, canary, shadow = release("1"), release("2"), release("3")
    worker = control()
    worker.hold_up(shadow.directory)
    await worker.service.start()
    await publish(active, str(active.directory), config, names)
    await publish(canary, str(canary.directory), config, names, role="canary", share=0.2)
    await worker.until(lambda: worker.last("canary") == "noop/2")
    await publish(shadow, str(shadow.directory), config, names, role="shadow", share=0.2)
    await worker.held_up(shadow.directory)

    await retract("canary", config, names)
    await worker.until(lambda: worker.last("canary") is None)
    # What is taken back while it is loaded is never served.
    await retract("shadow", config, names)
    await worker.until(lambda: worker.status["shadow"] is None)
    worker.let_go(shadow.directory)
    await publish(canary, str(canary.directory), config, names, role="shadow", share=0.4)
    await worker.until(lambda: worker.last("shadow") == "noop/2")
    assert [serving.release.id for serving, _ in worker.taken["shadow"] if serving] == ["noop/2"]


async def test_the_same_release_in_two_roles_is_held_once(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    first, second = release("1"), release("2")
    worker = control()
    await worker.service.start()
    await publish(first, str(first.directory), config, names)
    await publish(second, str(second.directory), config, names, role="canary", share=0.2)
    await worker.until(lambda: worker.last("canary") == "noop/2")
    await publish(second, str(second.directory), config, names)
    await worker.until(lambda: worker.last("active") == "noop/2")

    assert worker.served[-1] is canary_of(worker)


async def test_a_canary_of_all_products_is_refused(
    config: KafkaConfig,
    names: TopicsConfig,
    producer: AIOKafkaProducer,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    active, canary = release("1"), release("2")
    made = await publish(active, str(active.directory), config, names)
    with pytest.raises(ValueError, match="below 1"):
        await publish(canary, str(canary.directory), config, names, role="canary")
    await producer.send_and_wait(names.control, made.to_json(), key=role_key("canary"))
    worker = control()
    await worker.service.start()
    await worker.until(lambda: worker.refusals == 1)

    assert "share must be below 1" in worker.status["refused"][0]["reason"]
    assert worker.status["refused"][0]["role"] == "canary"


async def test_a_pinned_worker_obeys_its_setting_alone(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    first, second = release("1"), release("2")
    await publish(second, str(second.directory), config, names, role="canary", share=0.2)
    worker = control(pinned=str(first.directory))
    await worker.service.start()
    await worker.until(lambda: worker.last("active") == "noop/1")
    await worker.until(lambda: worker.status["canary"] is not None)

    assert worker.status["canary"]["note"] == "SORTIMENT_RELEASE overrules it"
    assert worker.taken["canary"] == []
