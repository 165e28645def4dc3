"""Counting attempts in a real Redis."""

from __future__ import annotations

import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition

from worker.attempts import Attempts, AttemptsConfig
from worker.local.redis import LocalRedis
from worker.metrics import Metrics

FIRST = TopicPartition("in", 0)
SECOND = TopicPartition("in", 1)


@dataclass
class Event:
    """What of a record counts here."""

    topic: str
    partition: int
    offset: int


def events(offsets: dict[TopicPartition, list[int]]) -> Any:
    return [Event(*partition, offset) for partition, some in offsets.items() for offset in some]


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def workers(redis_server: LocalRedis, prefix: str) -> AsyncIterator[list[Attempts]]:
    """Three workers of one group, as one after the other dies."""
    config = AttemptsConfig(redis_url=redis_server.url, prefix=prefix)
    made = [Attempts(config, "group", Metrics()) for _ in range(3)]
    yield made
    for worker in made:
        await worker.close()
    with redis.Redis.from_url(redis_server.url) as client:
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)


async def test_what_a_dead_worker_had_in_hand_is_counted(workers: list[Attempts]) -> None:
    first, second, third = workers
    assert await first.opened(FIRST) == {}
    await first.enter("prepare", events({FIRST: [5, 6, 7], SECOND: [9]}))
    await first.enter("model", events({FIRST: [5]}))
    # The first one dies: each offset of a partition counts once, whatever stages it was in.
    assert await second.opened(FIRST) == {5: 1, 6: 1, 7: 1}
    assert await second.opened(FIRST) == {5: 1, 6: 1, 7: 1}
    await second.enter("model", events({FIRST: [6, 7]}))
    assert await third.opened(FIRST) == {5: 1, 6: 2, 7: 2}
    assert await third.opened(SECOND) == {9: 1}


async def test_what_went_through_is_not_counted(workers: list[Attempts]) -> None:
    first, second, _ = workers
    await first.enter("model", events({FIRST: [1, 2]}))
    await first.leave("model")
    await first.enter("model", events({FIRST: [4]}))
    assert await second.opened(FIRST) == {4: 1}


async def test_what_is_given_up_in_order_is_not_counted(workers: list[Attempts]) -> None:
    first, second, third = workers
    await first.enter("prepare", events({FIRST: [1], SECOND: [2]}))
    await first.enter("model", events({FIRST: [3], SECOND: [4]}))
    await first.withdraw([FIRST])
    assert await second.opened(FIRST) == {}
    await first.withdraw()
    assert await third.opened(SECOND) == {}


async def test_own_notes_are_no_attempts(workers: list[Attempts]) -> None:
    first, _, _ = workers
    await first.enter("model", events({FIRST: [1]}))
    assert await first.opened(FIRST) == {}


async def test_delivered_offsets_are_forgotten(workers: list[Attempts]) -> None:
    first, second, third = workers
    await first.enter("model", events({FIRST: [1, 2, 3]}))
    await second.opened(FIRST)
    await second.forget(FIRST, [1, 3])
    assert await third.opened(FIRST) == {2: 1}


async def test_groups_do_not_see_each_other(
    workers: list[Attempts], redis_server: LocalRedis, prefix: str
) -> None:
    await workers[0].enter("model", events({FIRST: [1]}))
    config = AttemptsConfig(redis_url=redis_server.url, prefix=prefix)
    other = Attempts(config, "other", Metrics())
    assert await other.opened(FIRST) == {}
    await other.close()


async def test_a_foreign_note_is_no_offset(
    workers: list[Attempts], redis_server: LocalRedis, prefix: str
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(f"{prefix}:group:in:0:running", "someone", b"123")
    assert await workers[0].opened(FIRST) == {}


async def test_a_key_of_another_type_counts_nothing_and_is_said(
    workers: list[Attempts], redis_server: LocalRedis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{prefix}:group:in:0:running", b"123")
    assert await workers[0].opened(FIRST) == {}
    assert "not counting for now" in caplog.text


async def test_without_redis_nothing_is_counted_and_nothing_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"redis://:secret@127.0.0.1:{taken.getsockname()[1]}"
        metrics = Metrics()
        away = Attempts(AttemptsConfig(redis_url=url), "group", metrics)
        await away.enter("model", events({FIRST: [1]}))
        assert await away.opened(FIRST) == {}
        await away.leave("model")
        await away.close()
    assert "could not note attempts (ConnectionError)" in caplog.text
    assert "secret" not in caplog.text
    # One failure is enough to know: the next calls do not wait.
    assert metrics.registry.get_sample_value("sortiment_redis_errors_total") == 1
    assert "secret" not in repr(AttemptsConfig(redis_url=url))


async def test_no_address_no_counting() -> None:
    nowhere = Attempts(AttemptsConfig(), "group", Metrics())
    await nowhere.enter("model", events({FIRST: [1]}))
    assert await nowhere.opened(FIRST) == {}
    await nowhere.close()
