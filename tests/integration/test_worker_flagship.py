"""A trained flagship's release, with an encoder and without: the worker scores as ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from models.loading import Dtype, load_predictor
from models.self_check import make_examples
from tests.ledger import Ledger, by_place
from tests.streams import Group, Inputs
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import train_on_shop
from training.predictions import predict_products
from training.recipe import FlagshipSettings, Rates
from worker.local.worker_process import WorkerProcess

WIDE = {
    "encoder": "none",
    "views": "two",
    "min_count": 2,
    "hidden": True,
    "category_dim": 4,
    "members": 2,
    "whole_bag": True,
    "whole_members": 1,
    "rivals": True,
    "label_thresholds": "bands",
    "served_tables": "float16",
}


@pytest.mark.parametrize(
    ("changes", "dtype", "tolerance"),
    [({}, "float32", 1e-5), ({}, "bfloat16", 1e-3), (WIDE, "float32", 1e-5)],
    ids=["encoder", "encoder in bf16", "wide"],
)
async def test_the_worker_scores_as_evaluate_does(
    worker_process: Callable[..., WorkerProcess],
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
    changes: dict[str, Any],
    dtype: Dtype,
    tolerance: float,
) -> None:
    system = {
        "kind": "flagship",
        "encoder": str(save_tiny_bert(tmp_path / "encoder")),
        "max_tokens": 24,
        "hash_buckets": 2048,
        "bag_dim": 16,
        "rates": Rates(),
    }
    release, data = train_on_shop(tmp_path, FlagshipSettings(**system | changes))
    worker = worker_process(release=release.directory, dtype=dtype, max_batch_tokens=200)
    items = list(data.products("test"))
    events = [
        (item.product.product_id.encode(), orjson.dumps(asdict(item.product))) for item in items
    ]
    places = await inputs.send(events)
    await group.caught_up(worker)

    outputs = await ledger.read()
    assert not outputs.dead_letters
    predictor = load_predictor(release, torch.device("cpu"), dtype)
    found = predict_products(release, predictor, items, torch.device("cpu"))
    assert found.categories is not None
    categories = by_place(outputs.categories)
    for number, place in enumerate(places):
        category = categories[place]["category"]
        assert category["id"] == found.categories[number]
        assert category["score"] == pytest.approx(float(found.scores[number]), abs=tolerance)
        assert (categories[place]["status"] == "assigned") is bool(found.assigned[number])
    assert found.labels is not None
    wanted = make_examples(predictor, [item.product for item in items], release.taxonomy)
    attributes = by_place(outputs.attributes)
    for number, (place, example) in enumerate(zip(places, wanted, strict=True)):
        scores = {each["label_id"]: each["score"] for each in attributes[place]["attributes"]}
        assert set(scores) == set(found.labels[number])
        assert scores == pytest.approx(dict(example.labels), abs=tolerance)
