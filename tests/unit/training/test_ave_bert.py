from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.loading import load_predictor
from models.release import read_release
from models.self_check import run_self_check
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import shop_recipe
from training.ave_bert import AveBertLearner, AveBertSystem
from training.data import DataSet
from training.evaluate import evaluate
from training.prepared import prepare_split
from training.processes import Processes
from training.recipe import AveBertSettings, LoopSettings, Recipe
from training.run import run
from training.system import Job


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"), hidden=32)


@pytest.fixture
def recipe(data: Path, encoder: Path, tmp_path: Path) -> Recipe:
    return shop_recipe(
        data,
        tmp_path,
        AveBertSettings(
            kind="ave_bert",
            encoder=str(encoder),
            max_tokens=24,
            cls_layers=3,
            learning_rate=3e-3,
        ),
        LoopSettings(
            epochs=8,
            batch_size=8,
            patience=None,
            schedule="linear",
            clip_norm=None,
            average_from=0.6,
            average_every=5,
        ),
        name="ave",
    )


def with_system(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, system=replace(recipe.system, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"masking": False},
        {"classifiers": "leaf"},
        {"classifiers": "top", "thresholds": "tuned"},
    ],
    ids=["masking", "no-masking", "leaf", "top"],
)
def test_each_row_is_learned_released_and_served(
    recipe: Recipe, data: Path, changes: dict[str, Any]
) -> None:
    report = run(with_system(recipe, **changes), lambda _line: None)
    assert report is not None
    losses = [epoch["loss"] for epoch in report.outcome.history]
    assert losses[-1] < 0.8 * losses[0]
    release = read_release(recipe.out)
    assert release.categories is None
    assert all(example.mask_category is not None for example in release.examples)
    predictor = load_predictor(release, torch.device("cpu"), "float32")
    run_self_check(release, predictor)
    measured = evaluate(recipe.out, data, split="valid")
    wanted = report.metrics["attribute_micro_f1_true_category"]
    assert measured["attribute_micro_f1_true_category"] == pytest.approx(wanted, abs=1e-6)


def test_a_frozen_encoder_trains_the_linear_layer_alone(recipe: Recipe, encoder: Path) -> None:
    report = run(with_system(recipe, gear="frozen"), lambda _line: None)
    assert report is not None
    from models.encoders import last_layers, load_pretrained

    before = load_pretrained(
        str(encoder), layers=lambda count: last_layers(count, 3), pooling="concat"
    ).encoder
    weights = read_release(recipe.out).weights()
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, weights[f"encoder.{name}"])


def learner_of(recipe: Recipe) -> AveBertLearner:
    data = DataSet(recipe.data)
    job = Job(recipe, data.taxonomy, Processes("cpu"))
    torch.manual_seed(0)
    system = AveBertSystem(job)
    train, valid = (
        prepare_split(
            data,
            split,
            limit=None,
            seed=1,
            preparer=system.preparer,
            preparer_key=system.preparer_key,
            taxonomy=data.taxonomy,
            categories=system.categories,
            labels=system.labels,
            cache_dir=recipe.cache,
        )
        for split in ("train", "valid")
    )
    return system.learn(train, valid)


@pytest.mark.parametrize("masking", [True, False])
def test_the_loss_is_the_papers(recipe: Recipe, masking: bool) -> None:
    learner = learner_of(with_system(recipe, masking=masking))
    learner.model.eval()
    rows = np.array([3, 1, 4])
    targets = learner.train_split.targets
    with torch.inference_mode():
        found = float(learner.loss_of(rows))
        head = learner.net.attribute
        logits = learner.features(learner.train_split, rows) @ head.weight.T + head.bias
    total = 0.0
    for place, row in enumerate(rows):
        positives = set(targets.positives.take(np.array([row])).values.tolist())
        relevant = targets.masks.row(int(targets.leaves[row])).tolist()
        for label in relevant if masking else range(len(head.bias)):
            score = torch.sigmoid(logits[place, label]).item()
            total -= np.log(score) if label in positives else np.log1p(-score)
    assert found == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"masking": False}, {"classifiers": "leaf"}], ids=["masking", "no", "leaf"]
)
def test_pieces_of_a_step_make_its_loss(recipe: Recipe, changes: dict[str, Any]) -> None:
    """Wherever products without labels lie."""
    learner = learner_of(with_system(recipe, **changes))
    learner.model.eval()
    step = np.arange(8) if learner.groups is None else np.flatnonzero(learner.groups == 1)[:8]
    learner.train_split.targets.mask_rows[step[:3]] = -1
    with torch.inference_mode():
        whole = float(learner.loss_of(step))
        pieces = [float(learner.loss_of(part, step)) for part in np.split(step, [2, 5])]
    assert pieces[0] == 0
    assert sum(pieces) == pytest.approx(whole, rel=1e-5)


def test_batches_of_one_classifier_have_one_category(recipe: Recipe) -> None:
    learner = learner_of(with_system(recipe, classifiers="leaf"))
    assert learner.groups is not None
    np.testing.assert_array_equal(learner.groups, learner.train_split.targets.leaves)
    tops = learner_of(with_system(recipe, classifiers="top")).groups
    assert tops is not None
    assert set(tops.tolist()) == {0, 1}
    assert learner_of(recipe).groups is None


def test_a_step_moves_the_classifier_of_its_batch_alone(recipe: Recipe) -> None:
    """Nor do the moments of the steps before move the others."""
    learner = learner_of(with_system(recipe, classifiers="leaf", gear="frozen"))
    assert learner.groups is not None
    head = learner.net.attribute
    (optimizer,) = learner.optimizers()
    group = np.unique(learner.groups)[:2]
    for step in (0, 1, 0):
        before = head.weight.detach().clone(), head.bias.detach().clone()
        optimizer.zero_grad(set_to_none=True)
        learner.loss_of(np.flatnonzero(learner.groups == group[step])[:4]).backward()
        optimizer.step()
        moved = (head.weight != before[0]).any(dim=1) | (head.bias != before[1])
        owned = [learner._rows.all_of_group.row(row).tolist() for row in group]
        assert set(moved.nonzero()[:, 0].tolist()) == set(owned[step])


def test_several_classifiers_have_no_decay(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="classifiers=leaf has no weight_decay"):
        with_system(recipe, classifiers="leaf", weight_decay=0.01)
