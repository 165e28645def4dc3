from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.cascade import CascadeOutputs
from models.dhpc import dhpc_categories
from models.encoders import pad
from models.loading import load_predictor
from models.release import read_release
from models.segments import SEGMENT_IDS
from models.self_check import run_self_check
from models.tokens import INPUT_IDS
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import shop_recipe
from training import dhpc_learner
from training import features as features_module
from training.abstention import read_abstention
from training.data import DataSet
from training.dhpc import DhpcSystem, fit_cascade_temperatures
from training.dhpc_learner import DhpcLearner
from training.evaluate import evaluate
from training.loop import Interrupted
from training.predictions import predict_products
from training.prepared import prepare_split
from training.processes import Processes
from training.recipe import ChangeSettings, DhpcSettings, LoopSettings, Recipe, Strategy
from training.recipe_files import load_recipe
from training.run import run
from training.system import Job

STRATEGY = Strategy(bootstrap=0.9, negatives=0.7, temperature=0.9, per_leaf=60)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"), layers=3, hidden=32)


@pytest.fixture
def recipe(data: Path, encoder: Path, tmp_path: Path) -> Recipe:
    return shop_recipe(
        data,
        tmp_path,
        DhpcSettings(
            kind="dhpc",
            encoder=str(encoder),
            max_tokens=24,
            head_width=16,
            dropout=0.0,
            learning_rate=2e-3,
            head_rate=1e-2,
            embedding_rate=5e-2,
        ),
        LoopSettings(epochs=6, batch_size=16),
        name="dhpc",
    )


def with_system(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, system=replace(recipe.system, **changes))


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"department": STRATEGY, "leaf": STRATEGY, "beam": 2}, 0.75),
        # A frozen encoder with weights at random tells little.
        ({"bodies": "shared", "gear": "frozen", "pooling": "max", "abstention": "department"}, 0.3),
        ({"body": "pooled", "embedding": 8, "head_layers": 3}, 0.75),
        ({"first_layers": 2, "segments": False, "head_layers": 1, "bodies": "shared"}, 0.75),
    ],
    ids=["strategies", "frozen", "dnn", "pruned"],
)
def test_each_kind_is_learned_released_and_served(
    recipe: Recipe, data: Path, changes: dict[str, Any], least: float
) -> None:
    report = run(with_system(recipe, **changes), lambda _line: None)
    assert report is not None
    assert report.metrics["department_accuracy"] > least
    losses = [epoch["loss"] for epoch in report.outcome.history]
    assert losses[-1] < 0.9 * losses[0]
    release = read_release(recipe.out)
    assert release.labels is None
    said = read_abstention(release)
    assert said is not None and said.by == changes.get("abstention", "overall")
    assert release.categories is not None and release.category_thresholds is not None
    departments = [release.taxonomy.department_of(leaf) for leaf in release.categories.ids]
    np.testing.assert_array_equal(release.category_thresholds, said.of_leaves(departments))
    cpu = torch.device("cpu")
    predictor = load_predictor(release, cpu, "float32")
    run_self_check(release, predictor)
    measured = evaluate(recipe.out, data, split="valid", dtype="float32")
    # A frozen encoder's features were rounded to half precision in training.
    for name in ("category_accuracy", "department_accuracy", "coverage"):
        assert measured[name] == pytest.approx(report.metrics[name], abs=0.04), name

    # What one batch of all products gives is what evaluate's batches by length give.
    items = list(DataSet(data).products("test"))
    served = predict_products(release, predictor, items, cpu)
    model = dhpc_categories(predictor)
    scores = model.encode(predictor.preparer.prepare([item.product for item in items]))
    found = model.score_categories(scores, 1)
    np.testing.assert_allclose(found.scores[:, 0], served.scores, atol=1e-5)
    assert served.categories == [model.categories.ids[row] for row in found.rows[:, 0]]


def learner_of(recipe: Recipe) -> DhpcLearner:
    data = DataSet(recipe.data)
    torch.manual_seed(0)
    system = DhpcSystem(Job(recipe, data.taxonomy, Processes("cpu")))
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


def test_a_frozen_encoder_reads_once_for_every_choice_of_layers(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = with_system(recipe, gear="frozen", bodies="shared")
    first = learner_of(frozen)
    rows = np.arange(5)
    wanted = first.net.body("")(*_padded(first, rows))
    found = first.features(first.train_split, "department", rows)
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=1e-2)
    monkeypatch.setattr(features_module, "encode_tokens", None)
    for changes in ({"pooling": "mean"}, {"skip": False}, {"first_layers": 2, "pooling": "max"}):
        other = learner_of(with_system(frozen, **changes))
        found = other.features(other.train_split, "department", rows)
        wanted = other.net.body("")(*_padded(other, rows))
        torch.testing.assert_close(found, wanted, atol=5e-3, rtol=1e-2)


def _padded(learner: DhpcLearner, rows: Any) -> tuple[torch.Tensor, ...]:
    arrays = learner.train_split.prepared.arrays
    return (*pad(arrays[INPUT_IDS].take(rows), 0), pad(arrays[SEGMENT_IDS].take(rows), 0)[0])


def test_classifiers_are_trained_independently(recipe: Recipe) -> None:
    learner = learner_of(recipe)
    learner.model.train()
    before = {name: tensor.clone() for name, tensor in learner.net.state_dict().items()}
    optimizer = learner.optimizers()[0]
    for _ in range(3):
        optimizer.zero_grad()
        learner.loss_of(np.flatnonzero(learner.tasks.of == 2)[:16]).backward()
        optimizer.step()
    changed = {
        name.split(".")[1]
        for name, tensor in learner.net.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"leaf-1"}
    counts = learner.model["steps"].state_dict()["counts"]
    assert counts.tolist() == [0.0, 0.0, 3.0]


def test_pieces_of_a_step_count_as_one(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(with_system(recipe, body="pooled", embedding=4))
    steps: list[int] = []

    def noted(*given: Any) -> torch.Tensor:
        steps.append(given[-1])
        return torch.zeros(())

    monkeypatch.setattr(dhpc_learner, "classifier_loss", noted)
    learner.model.train()
    mine = np.flatnonzero(learner.tasks.of == 0)
    # Of other sizes in another process: five pieces here, two there, are as many steps.
    for step, sizes in ((mine[:5], (1, 1, 1, 1, 1)), (mine[5:10], (3, 2)), (mine[:5], (5,))):
        first = 0
        for size in sizes:
            learner.loss_of(step[first : first + size], step)
            first += size
    assert steps == [0] * 5 + [1] * 2 + [2]


def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = replace(
        with_system(
            recipe,
            body="pooled",
            embedding=4,
            department=replace(STRATEGY, bootstrap_from=9),
            leaf=STRATEGY,
        ),
        train=LoopSettings(epochs=2, batch_size=16, average_from=0.5, average_every=2),
    )
    run(replace(noisy, out=tmp_path / "whole"), lambda _line: None)
    plain, steps = DhpcLearner.loss_of, 0

    def interrupting(self: DhpcLearner, *rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 25:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *rows)

    monkeypatch.setattr(DhpcLearner, "loss_of", interrupting)
    with pytest.raises(Interrupted):
        run(noisy, lambda _line: None)
    run(noisy, lambda _line: None)
    resumed = read_release(noisy.out).weights()
    for name, tensor in read_release(tmp_path / "whole").weights().items():
        assert torch.equal(tensor, resumed[name]), name


def test_noise_is_learned_and_named_products_are_added(recipe: Recipe) -> None:
    said: list[str] = []
    changes = ChangeSettings(wrong_labels=0.4, label_names=0.5, dropped_texts=1.0)
    quick = replace(
        with_system(recipe, body="pooled", embedding=4),
        changes=changes,
        train=LoopSettings(epochs=1, batch_size=16),
    )
    run(quick, said.append)
    number = int(next(line for line in said if "training products" in line).split()[0])
    assert 160 + 50 < number < 160 + 110


def test_temperatures_tell_how_often_the_cascade_is_right() -> None:
    random = torch.Generator().manual_seed(0)
    department = 12 * torch.rand(4000, 1, generator=random) - 2
    right = torch.rand(4000, generator=random) < torch.sigmoid(department[:, 0] / 4)
    outputs = CascadeOutputs(
        torch.cat([department, torch.full((4000, 1), -50.0)], dim=1),
        torch.tensor([[torch.inf, -torch.inf]]).repeat(4000, 1),
        torch.tensor([[True, False]]).repeat(4000, 1),
        torch.tensor([0, 1]),
    )
    true = np.where(right.numpy(), 0, 1)
    found = fit_cascade_temperatures(outputs, torch.ones(2), true)
    assert found[0].item() == pytest.approx(4, rel=0.1)
    nothing = CascadeOutputs(*(part[:0] for part in _parts(outputs)), outputs.department_of)
    assert fit_cascade_temperatures(nothing, torch.ones(2), true[:0]).tolist() == [1, 1]


def _parts(outputs: CascadeOutputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return outputs.department, outputs.leaf, outputs.in_beam


def test_a_frozen_encoder_is_shared(encoder: Path) -> None:
    with pytest.raises(ValueError, match="bodies=shared"):
        DhpcSettings(kind="dhpc", encoder=str(encoder), gear="frozen")


def test_the_papers_recipe_has_its_best_settings() -> None:
    recipe = load_recipe("dhpc-amazon", ["data=d", "out=o"])
    assert isinstance(recipe.system, DhpcSettings)
    department, leaf = recipe.system.department, recipe.system.leaf
    assert (department.bootstrap, department.bootstrap_from, leaf.bootstrap) == (0.9, 0, 0.9)
    assert (department.negatives, leaf.negatives) == (0.0, 0.7)
    assert (recipe.system.bodies, recipe.system.head_layers, recipe.system.skip) == (
        "separate",
        2,
        True,
    )
