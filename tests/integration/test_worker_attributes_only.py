"""A release without a category model: labels of the category that the seller claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from models.loading import load_predictor
from models.self_check import make_examples
from models.taxonomy import Taxonomy
from tests.catalog import Event, seller_key, varied_product
from tests.ledger import Ledger, by_place
from tests.streams import Group, Inputs
from tests.tiny_ave_bert import tiny_ave_bert
from worker.events import parse_event
from worker.local.worker_process import WorkerProcess


@pytest.mark.parametrize("classifiers", ["one", "top"])
async def test_each_product_gets_the_labels_of_its_claimed_category(
    worker_process: Callable[..., WorkerProcess],
    taxonomy: Taxonomy,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
    classifiers: Any,
) -> None:
    release = tiny_ave_bert(tmp_path, taxonomy, classifiers)
    worker = worker_process(release=release.directory, dtype="float32", max_batch_tokens=200)
    leaves = taxonomy.leaves
    events: list[Event] = []
    for number in range(200):
        claim = "nowhere" if number % 50 == 49 else leaves[number % len(leaves)]
        fields = orjson.loads(varied_product(number)) | {"claimed_category": claim}
        events.append((seller_key(number), orjson.dumps(fields)))
    places = await inputs.send(events)
    await group.caught_up(worker)

    outputs = await ledger.read()
    assert not outputs.categories
    found = by_place(outputs.attributes)
    assert len(outputs.dead_letters) == 4
    predictor = load_predictor(release, torch.device("cpu"), "float32")
    wanted = make_examples(predictor, [parse_event(value) for _, value in events], taxonomy)
    for number, (place, example) in enumerate(zip(places, wanted, strict=True)):
        if number % 50 == 49:
            assert place not in found
            continue
        event = found[place]
        assert event["category_source"] == "claimed"
        scores = {label["label_id"]: label["score"] for label in event["attributes"]}
        assert scores == pytest.approx(dict(example.labels), abs=1e-5)
        assert set(scores) == set(taxonomy.relevant_label_ids(leaves[number % len(leaves)]))
