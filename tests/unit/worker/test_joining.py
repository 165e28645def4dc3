"""Brokers that are away when the worker joins, and its lag meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError

from worker import joining
from worker.intake import Intake, IntakeConfig
from worker.joining import Joining
from worker.kafka import KafkaConfig
from worker.metrics import Metrics


async def test_a_step_is_tried_until_the_brokers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_RETRY_S", 0.0)
    tried, said = Joining(), []

    async def step() -> None:
        said.append(tried.why_not)
        if len(said) < 3:
            raise KafkaConnectionError("away")

    await tried.until_done(step)
    assert said[0] == ""
    assert all("trying again" in each for each in said[1:])
    assert len(said) == 3
    assert tried.why_not == ""


async def test_what_trying_again_does_not_mend_is_raised() -> None:
    async def step() -> None:
        raise GroupAuthorizationFailedError("sortiment")

    with pytest.raises(GroupAuthorizationFailedError):
        await Joining().until_done(step)


async def test_lag_stands_until_it_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, nobody = Metrics(), cast(Any, None)
    intake = Intake(IntakeConfig(), KafkaConfig(bootstrap_servers="b:1"), nobody, nobody, metrics)
    metrics.lag.labels("products", 0).set(7)
    of = {"topic": "products", "partition": "0"}

    async def ends(_held: list[TopicPartition]) -> dict[TopicPartition, int]:
        # What a scrape would find while brokers are asked.
        assert metrics.registry.get_sample_value("sortiment_lag", of) == 7
        return {}

    monkeypatch.setattr(intake._priorities, "ends_of_held", ends)
    await intake.measure_lag()
    assert metrics.registry.get_sample_value("sortiment_lag", of) is None
