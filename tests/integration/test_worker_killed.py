"""A product that kills the process, again and again, until it has had its attempts."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from tests.catalog import product, products, seller_key
from tests.ledger import Ledger, headers_of
from tests.polling import until
from tests.streams import Group, Inputs, make_topic
from tests.suicidal_worker import DEADLY_TITLE
from worker.local.redis import LocalRedis
from worker.local.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
NUM_PRODUCTS = 10_000
DEADLY = 4_321


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
async def test_one_deadly_product_among_ten_thousand(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    redis_server: LocalRedis,
    tmp_path: Path,
    delivery: str,
) -> None:
    make_topic(str(settings["bootstrap_servers"]), inputs.topic, partitions=4)
    events = list(products(NUM_PRODUCTS))
    events[DEADLY] = (seller_key(DEADLY), product(DEADLY, title=DEADLY_TITLE))
    places = await inputs.send(events)
    given = settings | {
        "release": noop,
        "delivery": delivery,
        "partitions": 4,
        "redis_url": redis_server.url,
        "attempts_prefix": f"test-{uuid.uuid4().hex}",
        "session_timeout_ms": 6_000,
        "heartbeat_interval_ms": 1_000,
        "drain_timeout_s": 5,
        "max_poll_records": 500,
    }

    starts = 0
    is_done = False
    while not is_done:
        starts += 1
        assert starts <= 4, "at most three restarts"
        worker = WorkerProcess(
            given,
            directory=tmp_path,
            environ=os.environ | {"PYTHONPATH": str(ROOT)},
            name=f"worker-{starts}",
            program=[sys.executable, "-m", "tests.suicidal_worker"],
        )
        try:

            def why_not(worker: WorkerProcess = worker) -> str | None:
                if worker.child.poll() is not None:
                    return None
                behind = {p: pair for p, pair in group.offsets().items() if pair[0] < pair[1]}
                return f"behind: {behind}" if behind else None

            await until(why_not, 90, "the end of the input, or of the worker")
            is_done = worker.child.poll() is None
        finally:
            worker.stop()
            print(worker.child.log_tail(40))  # noqa: T201 - pytest shows it for a failed test

    assert starts == 4
    outputs = await ledger.read()
    dead = {places[DEADLY]: "killed_worker"}
    repeats = ledger.check(outputs, dead=dead, partitions=4)
    assert delivery == "at_least_once" or not repeats.places
    (letter,) = outputs.dead_letters
    assert headers_of(letter)["detail"].startswith("3 workers died with this product in hand")
