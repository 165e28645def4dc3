"""A kept release is used again only while nothing that decides it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from demo import trained
from demo.run import _CATALOG_TARGET_ACCURACY
from demo.trained import Training
from training.abstention import Promise, lowest_score
from training.recipe import FlagshipSettings
from training.recipe_files import load_recipe


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    for package in ("models", "kernels", "training"):
        (root / package).mkdir(parents=True)
        (root / package / "code.py").write_text("x = 1")
    (root / "training" / "recipe.yaml").write_text("x: 1")
    (root / "requirements.lock").write_text("a==1")
    monkeypatch.setattr(trained, "ROOT", root)
    directory = tmp_path / "data"
    directory.mkdir()
    for name in ("train.jsonl", "valid.jsonl.gz", "test.jsonl", "taxonomy.json"):
        (directory / name).write_text("1")
    return directory


def key(data: Path, limit: int | None = None) -> str:
    return trained._release_key(Training(data, limit))


def test_the_same_twice(data: Path) -> None:
    assert key(data) == key(data)


@pytest.mark.parametrize(
    "changed",
    [
        "data/train.jsonl",
        "data/valid.jsonl.gz",
        "data/taxonomy.json",
        "root/training/code.py",
        "root/training/recipe.yaml",
        "root/models/code.py",
        "root/kernels/code.py",
        "root/requirements.lock",
    ],
)
def test_any_change_that_decides_a_release(data: Path, changed: str) -> None:
    before = key(data)
    (data.parent / changed).write_text("2")
    assert key(data) != before


def test_limit_and_target_decide_too(data: Path) -> None:
    keys = {
        key(data),
        key(data, 10),
        key(data, 20),
        trained._release_key(Training(data, None, 0.9)),
    }
    assert len(keys) == 4


def test_held_out_products_do_not(data: Path) -> None:
    before = key(data)
    (data / "test.jsonl").write_text("2")
    assert key(data) == before


def test_only_the_last_used_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    trained._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "4", "5"]


def test_so_few_valid_products_show_what_the_demo_promises() -> None:
    """Else all that it sends goes to review."""
    target = f"system.target_accuracy={_CATALOG_TARGET_ACCURACY}"
    system = load_recipe("demo", ["data=.", "out=.", target]).system
    assert isinstance(system, FlagshipSettings)
    random = np.random.default_rng(0)
    # As on the sample catalog: of five products four are easy, none is certain.
    easy = random.random(400) < 0.85
    scores = np.where(easy, random.uniform(0.955, 1, 400), random.uniform(0.3, 0.9, 400))
    right = random.random(400) < scores
    assert 0.9 < right.mean() < 0.94
    threshold = lowest_score(scores.astype(np.float32), right, np.arange(400), Promise.of(system))
    assert (scores >= threshold).mean() > 0.5
