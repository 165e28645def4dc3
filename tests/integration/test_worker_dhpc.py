"""A trained dhpc release through a worker: the scores of evaluate, its thresholds obeyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.loading import Dtype, load_predictor
from tests.catalog import Event, product, seller_key
from tests.ledger import Ledger, by_place
from tests.streams import Group, Inputs
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import train_on_shop
from training.data import LabelledProduct
from training.predictions import predict_products
from training.recipe import DhpcSettings
from worker.local.worker_process import WorkerProcess


@pytest.mark.parametrize(
    ("changes", "dtype", "tolerance"),
    [
        ({"body": "pooled", "embedding": 4, "abstention": "department"}, "float32", 1e-5),
        ({"bodies": "shared", "gear": "frozen", "first_layers": 2}, "float32", 1e-5),
        ({"beam": 2, "pooling": "max"}, "float32", 1e-5),
        ({"beam": 2, "pooling": "max"}, "bfloat16", 1e-3),
    ],
    ids=["dnn", "pruned", "separate", "separate in bf16"],
)
async def test_scores_are_those_of_evaluate(
    worker_process: Callable[..., WorkerProcess],
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
    changes: dict[str, Any],
    dtype: Dtype,
    tolerance: float,
) -> None:
    system = DhpcSettings(
        kind="dhpc",
        encoder=str(save_tiny_bert(tmp_path / "encoder")),
        max_tokens=24,
        head_width=8,
        head_rate=1e-2,
        **changes,
    )
    release, data = train_on_shop(tmp_path, system)
    items = [*data.products("valid"), *data.products("test")]
    predictor = load_predictor(release, torch.device("cpu"), dtype)
    wanted = predict_products(release, predictor, items, torch.device("cpu"))
    assert wanted.categories is not None

    worker = worker_process(release=release.directory, dtype=dtype, max_batch_tokens=200)
    places = await inputs.send([event_of(number, item) for number, item in enumerate(items)])
    await group.caught_up(worker)
    outputs = await ledger.read()
    assert not outputs.dead_letters
    assert not outputs.attributes
    found = by_place(outputs.categories)
    for number, place in enumerate(places):
        event = found[place]
        assert event["category"]["score"] == pytest.approx(wanted.scores[number], abs=tolerance)
        assert event["category"]["id"] == wanted.categories[number]
        assert event["status"] == ("assigned" if wanted.assigned[number] else "review")


def event_of(number: int, item: LabelledProduct) -> Event:
    of = item.product
    return seller_key(number), product(
        number,
        locale=of.locale,
        title=of.title,
        description=of.description,
        bullets=list(of.bullets),
    )
