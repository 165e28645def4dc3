"""Products in on Kafka, categories and attributes out, through a worker of its own process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson

from models.taxonomy import Taxonomy
from tests.catalog import hostile_events, products
from tests.ledger import Outputs, audit
from tests.streams import Group, Inputs, metric
from worker.local.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
ReadOutputs = Callable[[], Awaitable[Outputs]]


async def test_every_product_gets_both_outputs_and_every_bad_event_its_dead_letter(
    worker_process: StartWorker,
    noop: Path,
    taxonomy: Taxonomy,
    inputs: Inputs,
    group: Group,
    read_outputs: ReadOutputs,
) -> None:
    worker = worker_process(release=noop)
    hostile = hostile_events()
    await inputs.send(products(700))
    places = await inputs.send(event for event, _ in hostile)
    await inputs.send(products(700, start=700))
    dead = {
        place: reason
        for place, (_, reason) in zip(places, hostile, strict=True)
        if reason is not None
    }

    await group.caught_up()

    outputs = await read_outputs()
    repeats = audit(inputs, outputs, taxonomy, dead=dead, schemas=True)
    assert not repeats.places
    assert {orjson.loads(record.value)["status"] for record in outputs.categories} == {"assigned"}
    for reason, count in Counter(dead.values()).items():
        assert metric(worker, "dead_letters_total", reason=reason) == count
    assert metric(worker, "results_total") == len(inputs) - len(dead)
    assert metric(worker, "events_total") == len(inputs)
    worker.terminate()
    assert worker.wait(60) == 0
