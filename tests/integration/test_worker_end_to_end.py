"""Products in on Kafka, categories and attributes out, through a worker of its own process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest
import torch

from models.loading import load_predictor
from models.self_check import make_examples
from models.taxonomy import Taxonomy
from tests.catalog import Event, hostile_events, products, seller_key, varied_product
from tests.ledger import Ledger, by_place
from tests.services import WorkerTopics
from tests.streams import Group, Inputs, make_topic, metric
from tests.tiny_flagship import tiny_flagship
from worker.events import parse_event
from worker.local.kafka import LocalKafka
from worker.local.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


async def test_every_product_gets_both_outputs_and_every_bad_event_its_dead_letter(
    worker_process: StartWorker,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
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

    await group.caught_up(worker)

    outputs = await ledger.read()
    repeats = ledger.check(outputs, dead=dead, schemas=True)
    assert not repeats.places
    assert {orjson.loads(record.value)["status"] for record in outputs.categories} == {"assigned"}
    for reason, count in Counter(dead.values()).items():
        assert metric(worker, "dead_letters_total", reason=reason) == count
    assert metric(worker, "results_total") == len(inputs) - len(dead)
    assert metric(worker, "events_total") == len(inputs)
    worker.terminate()
    assert worker.wait(60) == 0


async def test_each_product_gets_the_answer_of_the_model_to_it_and_no_other(
    worker_process: StartWorker,
    taxonomy: Taxonomy,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    release = tiny_flagship(tmp_path, taxonomy)
    # Small batches of unequal products: mixed, sorted by length and put back into order.
    worker = worker_process(
        release=release.directory, dtype="float32", max_batch_tokens=200, max_poll_records=150
    )
    events: list[Event] = [(seller_key(n), varied_product(n)) for n in range(600)]
    places = await inputs.send(events)
    await group.caught_up(worker)

    outputs = await ledger.read()
    assert not ledger.check(outputs, releases=["tiny/1"], schemas=True).places
    predictor = load_predictor(release, torch.device("cpu"), "float32")
    wanted = make_examples(predictor, [parse_event(value) for _, value in events], taxonomy)
    categories, attributes = by_place(outputs.categories), by_place(outputs.attributes)
    for place, example in zip(places, wanted, strict=True):
        top = categories[place]["top"]
        assert _close([(c["id"], c["score"]) for c in top], example.categories), place
        labels = [(a["label_id"], a["score"]) for a in attributes[place]["attributes"]]
        assert _close(labels, example.labels), place
        is_assigned = example.categories[0][1] >= 0.4
        assert (categories[place]["status"] == "assigned") is is_assigned
    reviews = sum(event["status"] == "review" for event in categories.values())
    assert 0 < reviews < len(events)
    assert metric(worker, "abstentions_total") == reviews
    assert metric(worker, "batches_total", outcome="done") > 10


async def test_topics_with_other_numbers_of_partitions(
    worker_process: StartWorker,
    kafka: LocalKafka,
    worker_topics: WorkerTopics,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    make_topic(kafka.bootstrap_servers, worker_topics.input_topic, partitions=3)
    worker = worker_process(release=noop, partitions=5)
    await inputs.send(products(1_000))
    await inputs.send([(b"bad", b"{")], partition=1)
    (bad,) = [place for place, (key, _) in inputs.events.items() if key == b"bad"]

    await group.caught_up(worker)

    dead = {bad: "invalid_json"}
    assert not (await ledger.audit(dead=dead, partitions=5)).places
    assert len(worker.status()["hot_path"]["assigned"]) == 3


def _close(found: Sequence[tuple[str, float]], wanted: Sequence[tuple[str, float]]) -> bool:
    """The same ids and scores; the last digits depend on what else was in the batch."""
    scores = dict(wanted)
    return scores.keys() == dict(found).keys() and all(
        score == pytest.approx(scores[name], abs=1e-4) for name, score in found
    )
