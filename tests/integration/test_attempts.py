"""Counting attempts in a real Redis."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition

from tests.hot_path_runs import sample
from tests.proxy import Proxy
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


@pytest.mark.parametrize("what", ["running", "counts"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, key: client.rpush(key, "a", "b"),
        lambda client, key: client.set(key, b"123"),
        lambda client, key: client.hset(key, mapping={"5": "many", "x": "1", "9" * 5_000: "1"}),
    ],
    ids=["a list", "a text", "other fields"],
)
async def test_what_is_not_ours_is_put_away_and_counting_goes_on(
    workers: list[Attempts],
    redis_server: LocalRedis,
    prefix: str,
    spoil: Callable[[redis.Redis, str], object],
    what: str,
) -> None:
    first, second, third = workers
    with redis.Redis.from_url(redis_server.url) as client:
        spoil(client, f"{prefix}:group:in:0:{what}")
    assert await first.opened(FIRST) == {}
    await first.enter("model", events({FIRST: [5, 6]}))
    assert await second.opened(FIRST) == {5: 1, 6: 1}
    assert all(worker.state == "in use" for worker in workers)

    # And when it comes under the eyes of a worker that is in the middle of counting.
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete(f"{prefix}:group:in:0:running")
        client.rpush(f"{prefix}:group:in:0:running", "a")
    await second.enter("model", events({FIRST: [7]}))
    assert (await third.opened(FIRST))[7] == 1
    assert sample(second._metrics, "redis_foreign_values_total") >= 1
    assert sample(second._metrics, "redis_errors_total") == 0


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


@pytest.fixture
async def remote(redis_proxy: Proxy, prefix: str) -> AsyncIterator[list[Attempts]]:
    """Two workers on the far side of a network that a test can make bad."""
    url = f"redis://{redis_proxy.address}/0"
    config = AttemptsConfig(redis_url=url, prefix=prefix, redis_retry_s=3_600.0)
    made = [Attempts(config, "group", Metrics()) for _ in range(2)]
    yield made
    for worker in made:
        await worker.close()


def ask_again(worker: Attempts) -> None:
    """As if the time had passed for which a Redis that has failed is left alone."""
    worker._away_until_s = 0.0


@pytest.mark.parametrize("silent", [False, True], ids=["slow", "silent"])
async def test_one_that_does_not_answer_in_time_costs_one_wait(
    remote: list[Attempts], redis_proxy: Proxy, silent: bool
) -> None:
    first, second = remote
    first._config = replace(first._config, redis_timeout_ms=50)
    await second.enter("model", events({FIRST: [1]}))
    if silent:
        redis_proxy.stall()
    else:
        redis_proxy.slow(up_s=0.3, down_s=0.3)
    for offset in range(100):
        await first.enter("model", events({FIRST: [offset], SECOND: [offset]}))
        await first.leave("model")
    assert await first.opened(FIRST) == {}
    assert sample(first._metrics, "redis_errors_total") == 1
    assert first.state == "away"

    redis_proxy.heal()
    first._config = replace(first._config, redis_timeout_ms=5_000)
    ask_again(first)
    # The answer to this question, not to one before it.
    assert await first.opened(FIRST) == {1: 1}
    assert first.state == "in use"


async def test_what_was_left_while_redis_was_away_is_taken_back_later(
    remote: list[Attempts], redis_proxy: Proxy
) -> None:
    first, second = remote
    await first.enter("model-0", events({FIRST: [1], SECOND: [2]}))
    await first.enter("prepare", events({FIRST: [3], SECOND: [4]}))
    redis_proxy.refuse()
    await first.leave("model-0")
    await first.leave("prepare")
    assert first.state == "away"
    redis_proxy.heal()
    ask_again(first)
    await first.enter("model-0", events({FIRST: [5]}))  # writes over one, takes the other back
    await first.withdraw([SECOND])
    await first.leave("prepare")

    assert await second.opened(SECOND) == {}
    assert await second.opened(FIRST) == {5: 1}


async def test_lost_connections_are_made_anew(remote: list[Attempts], redis_proxy: Proxy) -> None:
    first, second = remote
    for offset in range(10):
        both = [first.enter(stage, events({FIRST: [offset]})) for stage in ("prepare", "model")]
        await asyncio.gather(*both)
        redis_proxy.cut()
    assert await second.opened(FIRST) == {9: 1}
    redis_proxy.cut()
    assert await second.opened(FIRST) == {9: 1}
    assert sample(first._metrics, "redis_errors_total") == 0


async def test_one_that_comes_back_empty_counts_from_nothing(
    remote: list[Attempts], own_redis: LocalRedis
) -> None:
    first, second = remote
    await first.enter("model", events({FIRST: [1]}))
    own_redis.stop()
    await first.leave("model")
    assert first.state == "away"
    own_redis.start()
    ask_again(first)
    assert await first.opened(FIRST) == {}
    await first.enter("model", events({FIRST: [2]}))
    assert await second.opened(FIRST) == {2: 1}


@pytest.mark.parametrize(
    ("refuse", "allow", "remedy"),
    [
        (
            lambda client: client.config_set("maxmemory", 1),
            lambda client: client.config_set("maxmemory", 0),
            "raise its maxmemory",
        ),
        (
            lambda client: client.replicaof("127.0.0.1", "1"),
            lambda client: client.replicaof("NO", "ONE"),
            "must name the primary",
        ),
    ],
    ids=["full", "replica"],
)
async def test_one_that_takes_no_writes_is_away(
    remote: list[Attempts],
    own_redis: LocalRedis,
    caplog: pytest.LogCaptureFixture,
    refuse: Callable[[redis.Redis], object],
    allow: Callable[[redis.Redis], object],
    remedy: str,
) -> None:
    first, second = remote
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        refuse(client)
        for offset in range(10):
            await first.enter("model", events({FIRST: [offset]}))
            await first.leave("model")
        assert sample(first._metrics, "redis_errors_total") == 1
        assert first.state == "away"
        assert remedy in caplog.text
        allow(client)
    ask_again(first)
    await first.enter("model", events({FIRST: [11]}))
    assert first.state == "in use"
    assert await second.opened(FIRST) == {11: 1}


@pytest.mark.parametrize("password", ["", ":hunter2@"], ids=["none", "wrong"])
async def test_one_that_wants_a_password_says_which_setting_to_see(
    own_redis: LocalRedis, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "sesame")
    url = own_redis.url.replace("redis://", f"redis://{password}")
    refused = Attempts(AttemptsConfig(redis_url=url), "group", Metrics())
    await refused.enter("model", events({FIRST: [1]}))
    await refused.close()
    assert refused.state == "away"
    assert "see the user and the password in REDIS_URL" in caplog.text
    assert "hunter2" not in caplog.text
