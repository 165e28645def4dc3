"""A trained release of ave-label-masking through a worker: the labels and scores of evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
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
from training.recipe import AveBertSettings
from worker.local.worker_process import WorkerProcess

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "dtype", "tolerance"),
    [
        ({}, "float32", 1e-5),
        ({}, "bfloat16", 1e-3),
        ({"gear": "frozen", "classifiers": "leaf"}, "float32", 1e-5),
        ({"gear": "frozen", "classifiers": "top"}, "float32", 1e-5),
    ],
    ids=["one", "one in bf16", "by leaf", "by department"],
)
async def test_labels_and_scores_are_those_of_evaluate(
    worker_process: Callable[..., WorkerProcess],
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
    changes: dict[str, Any],
    dtype: Dtype,
    tolerance: float,
) -> None:
    system = AveBertSettings(
        kind="ave_bert",
        encoder=str(save_tiny_bert(tmp_path / "encoder")),
        max_tokens=24,
        cls_layers=2,
        learning_rate=1e-2,
        thresholds="tuned",
        **changes,
    )
    release, data = train_on_shop(tmp_path, system, epochs=6, batch_size=16)
    items = [*data.products("valid"), *data.products("test")]
    predictor = load_predictor(release, CPU, dtype)
    found = predict_products(release, predictor, items, CPU)
    assert found.labels_of_true is not None
    # Neither all labels nor none: thresholds are seen to be obeyed.
    assert 0 < sum(map(len, found.labels_of_true)) < 2 * len(items)
    claimed = [replace(item.product, claimed_category=item.category) for item in items]
    wanted = make_examples(predictor, claimed, release.taxonomy)

    worker = worker_process(release=release.directory, dtype=dtype, max_batch_tokens=200)
    events = [(each.product_id.encode(), orjson.dumps(asdict(each))) for each in claimed]
    places = await inputs.send(events)
    await group.caught_up(worker)
    outputs = await ledger.read()
    assert not outputs.dead_letters
    assert not outputs.categories
    served = by_place(outputs.attributes)
    for number, (place, example) in enumerate(zip(places, wanted, strict=True)):
        scores = {each["label_id"]: each["score"] for each in served[place]["attributes"]}
        assert set(scores) == set(found.labels_of_true[number])
        assert scores == pytest.approx(dict(example.labels), abs=tolerance)
