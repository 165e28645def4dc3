from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from worker.local.errors import LocalServiceError
from worker.local.redis import LocalRedis, start_redis


@pytest.fixture
def own_redis() -> Iterator[LocalRedis]:
    with start_redis({}) as running:
        yield running


def client(server: LocalRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_answers_and_keeps_nothing_over_a_restart(own_redis: LocalRedis) -> None:
    with client(own_redis) as connection:
        connection.set("key", b"value")
        assert connection.get("key") == b"value"
    own_redis.restart()
    with client(own_redis) as connection:
        assert connection.get("key") is None
        assert connection.config_get("save") == {"save": ""}


def test_stopped_it_refuses_and_comes_back_on_its_port(own_redis: LocalRedis) -> None:
    own_redis.stop()
    with client(own_redis) as connection, pytest.raises(redis.ConnectionError):
        connection.ping()
    own_redis.start()
    with client(own_redis) as connection:
        assert connection.ping()


def test_a_given_one_is_used_and_left_alone(own_redis: LocalRedis) -> None:
    with start_redis({"REDIS_URL": own_redis.url}) as given:
        assert (given.source, given.url) == ("given", own_redis.url)
        with pytest.raises(LocalServiceError, match="was given and is not ours"):
            given.stop()
    with client(own_redis) as connection:
        assert connection.ping()


def test_a_given_one_that_does_not_answer_is_an_error_without_its_password(
    own_redis: LocalRedis,
) -> None:
    url = own_redis.url.replace("redis://", "redis://:hunter2@")
    own_redis.stop()
    with pytest.raises(LocalServiceError, match="REDIS_URL names does not answer") as caught:
        start_redis({"REDIS_URL": url})
    assert "hunter2" not in str(caught.value)


def test_close_removes_everything() -> None:
    server = start_redis({})
    assert server.log_path is not None
    server.close()
    server.close()
    assert not server.log_path.parent.exists()
