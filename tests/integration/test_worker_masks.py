"""Masks by level, against a real Redis; and a worker that goes on without one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import redis
import torch

from models.labels import LabelSpace, unpack_mask
from models.noop import noop_release
from models.release import Release
from models.taxonomy import Taxonomy, compile_mask
from tests.catalog import many_shelves
from tests.hot_path_runs import sample
from tests.proxy import Proxy
from worker.local.redis import LocalRedis
from worker.masks import MaskCache, MaskCacheConfig, MaskMemory, RedisMasks
from worker.metrics import Metrics

NUM_SHELVES = 2_000  # a new one for each look at Redis, which is asked again after 5 s
LEVELS = ("device", "memory", "redis", "compiled")


@pytest.fixture(scope="module")
def shelves() -> Taxonomy:
    return many_shelves(NUM_SHELVES)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, shelves: Taxonomy) -> Release:
    return noop_release(tmp_path_factory.mktemp("shelves") / "noop", shelves)


class Cache:
    """One worker's cache: a process of its own has its own memory and device."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        config: MaskCacheConfig,
        memory: MaskMemory | None = None,
        taxonomy_sha256: str = "5" * 64,
    ) -> None:
        self.metrics = Metrics()
        self.labels = LabelSpace(taxonomy.label_ids())
        self.taxonomy = taxonomy
        self.remote = RedisMasks(config, self.metrics) if config.redis_url else None
        self.memory = memory or MaskMemory(config.max_memory_bytes)
        self.cache = MaskCache(
            taxonomy,
            taxonomy_sha256,
            self.labels,
            torch.device("cpu"),
            self.memory,
            self.remote,
            config,
            self.metrics,
        )

    def get(self, *category_ids: str) -> None:
        """Look categories up and compare each mask with the taxonomy's."""
        ids = list(self.taxonomy.categories)
        rows = np.array([ids.index(category) for category in category_ids], dtype=np.int64)
        table, found = self.cache.lookup(rows)
        for category, row in zip(category_ids, found.tolist(), strict=True):
            start, end = int(table.indptr[row]), int(table.indptr[row + 1])
            wanted = compile_mask(self.taxonomy, category, self.labels)
            assert table.indices[start:end].tolist() == wanted.tolist()

    @property
    def levels(self) -> tuple[float, ...]:
        """Lookups by level, in the order of LEVELS."""
        return tuple(sample(self.metrics, "mask_lookups_total", level=level) for level in LEVELS)


@pytest.fixture
def config(redis_server: LocalRedis, group_id: str) -> MaskCacheConfig:
    """Keys that no other test has."""
    return MaskCacheConfig(redis_url=redis_server.url, redis_timeout_ms=5_000, prefix=group_id)


@pytest.fixture
def client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as connected:
        yield connected


def keys(client: redis.Redis, config: MaskCacheConfig) -> list[bytes]:
    return sorted(client.scan_iter(f"{config.prefix}:*", count=1_000))


class TestLevels:
    def test_each_is_asked_only_for_what_the_one_before_lacks(
        self, shelves: Taxonomy, config: MaskCacheConfig, client: redis.Redis
    ) -> None:
        first = Cache(shelves, config)
        first.get("shelf1", "shelf2", "box3")
        assert first.levels == (0, 0, 0, 3)
        first.get("shelf1", "shelf1", "box4")
        assert first.levels == (2, 0, 0, 4)
        another_release = Cache(shelves, config, memory=first.memory)
        another_release.get("shelf1", "box4")
        assert another_release.levels == (0, 2, 0, 0)

        second = Cache(shelves, config)
        second.get("shelf1", "shelf2", "box3", "box5")

        assert second.levels == (0, 0, 3, 1)
        assert len(keys(client, config)) == 5
        assert sample(second.metrics, "redis_errors_total") == 0

    def test_entries_are_packed_masks_that_expire(
        self, shelves: Taxonomy, config: MaskCacheConfig, client: redis.Redis
    ) -> None:
        cache = Cache(shelves, config)
        cache.get("shelf7")

        (key,) = keys(client, config)
        assert key.endswith(b":shelf7")
        assert cache.labels.hash.encode() in key
        packed = client.get(key)
        assert isinstance(packed, bytes)
        wanted = compile_mask(shelves, "shelf7", cache.labels)
        assert unpack_mask(packed, len(cache.labels)).tolist() == wanted.tolist()
        assert 0 < client.ttl(key) <= config.redis_ttl_s

    def test_another_taxonomy_of_the_same_version_shares_nothing(
        self, shelves: Taxonomy, config: MaskCacheConfig
    ) -> None:
        Cache(shelves, config).get("shelf1")
        other = Cache(shelves, config, taxonomy_sha256="6" * 64)
        other.get("shelf1")
        assert other.levels == (0, 0, 0, 1)

    def test_no_category_is_looked_up_nowhere(
        self, shelves: Taxonomy, config: MaskCacheConfig
    ) -> None:
        cache = Cache(shelves, config)
        _, found = cache.cache.lookup(np.array([-1, -1], dtype=np.int64))
        assert found.tolist() == [-1, -1]
        assert cache.levels == (0, 0, 0, 0)

    def test_memory_forgets_the_oldest_and_redis_has_it_still(
        self, shelves: Taxonomy, config: MaskCacheConfig
    ) -> None:
        small = replace(config, max_memory_bytes=64)
        first = Cache(shelves, small)
        first.get(*(f"shelf{number}" for number in range(100)))
        again = Cache(shelves, small, memory=first.memory)
        again.get("shelf0")
        assert again.levels == (0, 0, 1, 0)

    @pytest.mark.parametrize(
        ("spoil", "num_foreign"),
        [
            (lambda client, key: client.set(key, b"abc"), 1),
            (lambda client, key: client.set(key, b"\xff\xff\xff\xff"), 1),
            (lambda client, key: client.set(key, b"\x02\0\0\0\x01\0\0\0"), 1),
            # Redis itself says that there is no text under such a key.
            (lambda client, key: (client.delete(key), client.rpush(key, "a", "b")), 0),
            (lambda client, key: (client.delete(key), client.hset(key, "a", "b")), 0),
        ],
        ids=["odd length", "no such label", "not rising", "a list", "a hash"],
    )
    def test_what_is_no_mask_is_compiled_and_written_anew(
        self,
        shelves: Taxonomy,
        config: MaskCacheConfig,
        client: redis.Redis,
        spoil: Callable[[redis.Redis, bytes], object],
        num_foreign: int,
    ) -> None:
        Cache(shelves, config).get("shelf1", "shelf2")
        spoil(client, keys(client, config)[0])

        second, third = Cache(shelves, config), Cache(shelves, config)
        second.get("shelf1", "shelf2")
        third.get("shelf1", "shelf2")

        assert second.levels == (0, 0, 1, 1)
        assert third.levels == (0, 0, 2, 0)
        assert sample(second.metrics, "redis_errors_total") == 0
        assert sample(second.metrics, "redis_foreign_values_total") == num_foreign


class TestAway:
    def test_one_that_never_answers_is_given_up_after_the_time_out(
        self, shelves: Taxonomy, config: MaskCacheConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://:hunter2@127.0.0.1:{silent.getsockname()[1]}/0"
            cache = Cache(shelves, replace(config, redis_url=url, redis_timeout_ms=50))
            cache.get("shelf1")
            cache.get("shelf2", "shelf3")

        assert cache.levels == (0, 0, 0, 3)
        # The read failed; neither its write nor the next lookup waited again.
        assert sample(cache.metrics, "redis_errors_total") == 1
        assert cache.remote is not None
        assert cache.remote.is_away
        assert "going on from memory and the release" in caplog.text
        assert "hunter2" not in caplog.text

    def test_it_is_asked_again_after_a_while(
        self, shelves: Taxonomy, config: MaskCacheConfig, own_redis: LocalRedis
    ) -> None:
        own_redis.stop()
        cache = Cache(shelves, replace(config, redis_url=own_redis.url, redis_retry_s=0.0))
        cache.get("shelf1")
        assert cache.remote is not None
        assert cache.remote.is_away

        own_redis.start()
        cache.get("shelf2")

        assert not cache.remote.is_away
        with redis.Redis.from_url(own_redis.url) as connected:
            assert [key.rpartition(b":")[2] for key in keys(connected, config)] == [b"shelf2"]

    @pytest.mark.parametrize("silent", [False, True], ids=["slow", "silent"])
    def test_one_that_does_not_answer_in_time_costs_one_wait(
        self, shelves: Taxonomy, config: MaskCacheConfig, redis_proxy: Proxy, silent: bool
    ) -> None:
        url = f"redis://{redis_proxy.address}/0"
        patient = replace(config, redis_url=url, redis_timeout_ms=500, redis_retry_s=3_600.0)
        cache = Cache(shelves, patient)
        cache.get("shelf1")
        assert sample(cache.metrics, "redis_errors_total") == 0
        if silent:
            redis_proxy.stall()
        else:
            redis_proxy.slow(down_s=2.0)
        for number in range(2, 50):
            cache.get(f"shelf{number}")

        assert cache.levels == (0, 0, 0, 49)
        assert sample(cache.metrics, "redis_errors_total") == 1
        assert cache.remote is not None
        assert cache.remote.state == "away"

    def test_answers_that_trickle_in_are_given_up(
        self, shelves: Taxonomy, config: MaskCacheConfig, redis_proxy: Proxy
    ) -> None:
        through = replace(config, redis_url=f"redis://{redis_proxy.address}/0")
        many = [f"shelf{number}" for number in range(1_000)]
        Cache(shelves, through).get(*many)
        impatient = replace(through, redis_timeout_ms=700, redis_retry_s=0.0)
        cache = Cache(shelves, impatient)
        cache.get("shelf1500")
        redis_proxy.slow(bytes_per_s=3_000)

        cache.get(*many)
        cache.get("shelf1501")  # while the former answer still comes in

        assert cache.levels == (0, 0, 0, 1_002)
        assert sample(cache.metrics, "redis_errors_total") == 1
        assert cache.remote is not None
        assert cache.remote.state == "away"

    def test_late_answers_are_not_taken_for_those_of_the_next_question(
        self, shelves: Taxonomy, config: MaskCacheConfig, redis_proxy: Proxy
    ) -> None:
        through = replace(config, redis_url=f"redis://{redis_proxy.address}/0", redis_retry_s=0.0)
        Cache(shelves, through).get(*(f"shelf{number}" for number in range(20)))
        impatient = Cache(shelves, replace(through, redis_timeout_ms=300))
        impatient.get("shelf1")
        redis_proxy.slow(down_s=0.5)
        impatient.get("shelf2", "shelf3")
        assert sample(impatient.metrics, "redis_errors_total") >= 1
        redis_proxy.heal()

        impatient.get(*(f"shelf{number}" for number in range(4, 20)))

        assert impatient.remote is not None
        assert impatient.remote.state == "in use"
        assert impatient.levels == (0, 0, 17, 2)

    def test_a_lost_connection_is_made_anew(
        self, shelves: Taxonomy, config: MaskCacheConfig, redis_proxy: Proxy
    ) -> None:
        cache = Cache(shelves, replace(config, redis_url=f"redis://{redis_proxy.address}/0"))
        cache.get("shelf1")
        redis_proxy.cut()
        cache.get("shelf2")

        assert redis_proxy.num_connections == 2
        assert sample(cache.metrics, "redis_errors_total") == 0

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
    def test_one_that_takes_no_writes_is_still_read(
        self,
        shelves: Taxonomy,
        config: MaskCacheConfig,
        own_redis: LocalRedis,
        caplog: pytest.LogCaptureFixture,
        refuse: Callable[[redis.Redis], object],
        allow: Callable[[redis.Redis], object],
        remedy: str,
    ) -> None:
        own = replace(config, redis_url=own_redis.url)
        Cache(shelves, own).get("shelf1", "shelf2")
        with redis.Redis.from_url(own_redis.url) as connected:
            connected.config_set("maxmemory-policy", "noeviction")
            refuse(connected)
            cache = Cache(shelves, replace(own, redis_retry_s=3_600.0))
            assert cache.remote is not None
            cache.get("shelf1", "shelf3")
            cache.get("shelf2", "shelf4")
            assert cache.remote.state == "takes no writes"
            assert cache.levels == (0, 0, 2, 2)
            assert sample(cache.metrics, "redis_errors_total") == 1
            assert remedy in caplog.text

            allow(connected)
            cache.remote._refuses_until_s = 0.0
            cache.get("shelf5")
            assert cache.remote.state == "in use"
            assert len(keys(connected, config)) == 3

    @pytest.mark.parametrize("password", ["", ":hunter2@"], ids=["none", "wrong"])
    def test_one_that_wants_a_password_says_which_setting_to_see(
        self,
        shelves: Taxonomy,
        config: MaskCacheConfig,
        own_redis: LocalRedis,
        caplog: pytest.LogCaptureFixture,
        password: str,
    ) -> None:
        with redis.Redis.from_url(own_redis.url) as connected:
            connected.config_set("requirepass", "sesame")
        url = own_redis.url.replace("redis://", f"redis://{password}")
        cache = Cache(shelves, replace(config, redis_url=url))
        cache.get("shelf1")

        assert cache.remote is not None
        assert cache.remote.state == "away"
        assert "see the user and the password in REDIS_URL" in caplog.text
        assert "hunter2" not in caplog.text
