"""Products that make the model or its preparer fail: each found, alone, and nobody else harmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brittle import POISON, UNPREPARABLE, BrittleEncoder, brittle
from tests.catalog import Event, product, products, seller_key
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger, headers_of
from tests.polling import until
from tests.streams import Group, Inputs, make_topic

NUM_PRODUCTS = 600


def events_with(titles: dict[int, str]) -> list[Event]:
    """Products, some with a title of their own."""
    events = list(products(NUM_PRODUCTS))
    for number, title in titles.items():
        events[number] = (seller_key(number), product(number, title=title))
    return events


@pytest.fixture
def inputs(settings: dict[str, object], inputs: Inputs) -> Inputs:
    """To be filled before the worker starts, so that its first window is a large one."""
    make_topic(str(settings["bootstrap_servers"]), inputs.topic, partitions=4)
    return inputs


async def test_each_poisonous_product_alone_becomes_a_dead_letter(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    reasons = dict.fromkeys([0, 7, 8, 9, 300, NUM_PRODUCTS - 1], "model_failed")
    reasons |= dict.fromkeys([5, 6, 301, NUM_PRODUCTS - 2], "unpreparable")
    titles = {n: POISON if why == "model_failed" else UNPREPARABLE for n, why in reasons.items()}
    places = await inputs.send(events_with(titles))

    async with HotPathRun(settings, brittle(noop, BrittleEncoder())) as run:
        await group.caught_up()

    outputs = await ledger.read()
    dead = {places[number]: reason for number, reason in reasons.items()}
    assert not ledger.check(outputs, dead=dead, schemas=True).places
    details = {headers_of(record)["detail"] for record in outputs.dead_letters}
    assert details == {
        "RuntimeError: an input that the model cannot take",
        "ValueError: a title that no tokenizer likes",
    }
    assert sample(run.metrics, "batches_total", outcome="failed") >= 1
    assert sample(run.metrics, "dead_letters_total", reason="model_failed") == 6


async def test_a_batch_too_large_for_the_device_is_halved_until_it_fits(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    places = await inputs.send(events_with({100: POISON}))

    async with HotPathRun(settings, brittle(noop, BrittleEncoder(room=10))) as run:
        await group.caught_up()

    dead = {places[100]: "model_failed"}
    assert not (await ledger.audit(dead=dead)).places
    assert sample(run.metrics, "batches_total", outcome="out_of_memory") >= 1


async def test_a_model_that_fails_on_everything_buries_nothing(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    encoder = BrittleEncoder(fails_always=True)
    given = settings | {"breaker_probe_interval_s": 0.2}

    async with HotPathRun(given, brittle(noop, encoder)) as run:
        await inputs.send(events_with({}))

        def why_not() -> str | None:
            reasons = "; ".join(run.hot_path.not_ready())
            return None if "the device is gone" in reasons else reasons or "all is well"

        await until(why_not, 60, "the breaker opens")
        assert run.hot_path.status()["breaker"]["state"] in ("open", "probing")
        assert not (await ledger.read()).dead_letters
        # It tries again by itself, and goes on where it stopped.
        encoder.fails_always = False
        await group.caught_up()
        assert run.hot_path.status()["breaker"] == {"state": "closed", "why": None}

    assert not (await ledger.audit()).places


async def test_a_flood_of_dead_letters_stops_the_worker_until_products_come(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    given = settings | {"breaker_probe_interval_s": 0.2}

    async with HotPathRun(given, load_serving(noop)) as run:
        bad = await inputs.send([(seller_key(number), b"{") for number in range(240)])

        def why_not() -> str | None:
            breaker = run.hot_path.status()["breaker"]
            return None if "became dead letters" in (breaker["why"] or "") else str(breaker)

        await until(why_not, 60, "the breaker opens")
        await inputs.send(events_with({}))
        await group.caught_up()
        assert run.hot_path.status()["breaker"]["state"] == "closed"

    dead = dict.fromkeys(bad, "invalid_json")
    assert not (await ledger.audit(dead=dead)).places
