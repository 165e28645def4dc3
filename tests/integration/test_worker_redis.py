"""Products flow whatever becomes of Redis, and the worker says what has become of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import redis

from models.taxonomy import Taxonomy
from tests.catalog import products
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Outputs, audit
from tests.proxy import Proxy
from tests.streams import Group, Inputs
from worker.local.redis import LocalRedis


async def test_products_flow_while_redis_is_away_slow_silent_full_or_locked(
    settings: dict[str, object],
    noop: Path,
    taxonomy: Taxonomy,
    inputs: Inputs,
    group: Group,
    own_redis: LocalRedis,
    redis_proxy: Proxy,
    read_outputs: Callable[[], Awaitable[Outputs]],
) -> None:
    given = settings | {"redis_url": f"redis://{redis_proxy.address}/0", "max_poll_records": 100}
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "noeviction")

        def lock() -> None:
            client.config_set("requirepass", "sesame")
            redis_proxy.cut()  # who is in already stays in

        def unlock() -> None:
            client.execute_command("AUTH", "sesame")
            client.config_set("requirepass", "")

        faults: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "refuses": (redis_proxy.refuse, redis_proxy.heal),
            "slow": (lambda: redis_proxy.slow(up_s=1.0, down_s=1.0), redis_proxy.heal),
            "silent": (redis_proxy.stall, redis_proxy.heal),
            "full": (
                lambda: client.config_set("maxmemory", 1),
                lambda: client.config_set("maxmemory", 0),
            ),
            "replica": (
                lambda: client.replicaof("127.0.0.1", "1"),
                lambda: client.replicaof("NO", "ONE"),
            ),
            "locked": (lock, unlock),
            "restarted": (own_redis.stop, own_redis.start),
        }
        async with HotPathRun(given, load_serving(noop)) as run:
            attempts = run.hot_path._attempts
            attempts._config = replace(attempts._config, redis_retry_s=3_600.0)
            for name, (begin, end) in faults.items():
                await inputs.send(products(200, start=len(inputs)))
                await group.caught_up()
                assert run.hot_path.status()["attempts"] == "in use", f"before {name}"
                errors = sample(run.metrics, "redis_errors_total")
                begin()
                await inputs.send(products(1_000, start=len(inputs)))
                await group.caught_up()
                assert run.hot_path.status()["attempts"] == "away", name
                assert not run.hot_path.not_ready(), name
                # Left alone after the first wait; two stages may have been waiting at a time.
                assert 1 <= sample(run.metrics, "redis_errors_total") - errors <= 3, name
                end()
                attempts._away_until_s = 0.0

    assert not audit(inputs, await read_outputs(), taxonomy).places
