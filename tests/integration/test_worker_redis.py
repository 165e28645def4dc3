"""Products flow whatever becomes of Redis, and the worker says what has become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import redis

from models.noop import noop_release
from tests.catalog import Event, many_shelves, product, products, seller_key
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger, audit
from tests.polling import until
from tests.proxy import Proxy
from tests.streams import Group, Inputs, lacks_results, metric
from worker.local.redis import LocalRedis
from worker.local.worker_process import WorkerProcess

NUM_SHELVES = 200  # a new one for each look at Redis, which is asked again after 5 s


async def test_products_flow_while_redis_is_away_slow_silent_full_or_locked(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    own_redis: LocalRedis,
    redis_proxy: Proxy,
    ledger: Ledger,
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

    assert not (await ledger.audit()).places


async def test_a_worker_goes_on_while_redis_comes_and_goes(
    worker_process: Callable[..., WorkerProcess],
    own_redis: LocalRedis,
    tmp_path: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    release = noop_release(tmp_path / "shelves", many_shelves(NUM_SHELVES))
    own_redis.stop()
    worker = worker_process(
        release=release.directory,
        redis_url=own_redis.url,
        redis_timeout_ms=1_000,  # a busy machine is no outage
        category_source="claimed",
    )
    shelf = iter(range(NUM_SHELVES))

    def claims() -> list[Event]:
        """Products that claim a category whose mask the worker has not met."""
        claimed = f"shelf{next(shelf)}"
        numbers = range(len(inputs), len(inputs) + 50)
        return [(seller_key(n), product(n, claimed_category=claimed)) for n in numbers]

    async def claim_until(redis_is: str) -> None:
        # The worker only notices when it asks for a mask that it lacks.
        while worker.status()["release"]["masks"]["redis"] != redis_is:
            done = metric(worker, "results_total")
            await inputs.send(claims())
            await until(
                partial(lacks_results, worker, done + 1),
                60,
                f"a result, to see Redis {redis_is}",
            )

    assert worker.status()["release"]["masks"]["redis"] == "away"
    assert metric(worker, "redis_errors_total") >= 1
    compiled = metric(worker, "mask_lookups_total", level="compiled")
    assert compiled == len(release.taxonomy.leaves)
    own_redis.start()
    await claim_until("in use")
    errors = metric(worker, "redis_errors_total")
    own_redis.stop()
    await claim_until("away")
    assert metric(worker, "redis_errors_total") > errors
    own_redis.start()
    await claim_until("in use")
    await group.caught_up(worker)

    assert not audit(inputs, await ledger.read(), release.taxonomy).places
    with redis.Redis.from_url(own_redis.url) as connected:
        # Started empty: what is there was written after it came back.
        assert connected.dbsize() > 0
