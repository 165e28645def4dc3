from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import SortimentError
from tests.small_disk import small_disk
from training.loop import Interrupted, _schedule, num_epochs, train
from training.loop_state import Outcome
from training.processes import Processes
from training.recipe import LoopSettings
from training.row_adam import RowAdam

ROWS = 40
SETTINGS = LoopSettings(epochs=4, batch_size=8)
AVERAGED = LoopSettings(
    epochs=4,
    batch_size=4,
    accumulate=2,
    patience=None,
    schedule="linear",
    clip_norm=None,
    average_from=0.4,
    average_every=2,
)


class Problem:
    """A small regression with dropout (random state matters) and a sparse embedding."""

    num_rows = ROWS
    lengths: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None

    def __init__(self, dropout: float = 0.5) -> None:
        self.dropout = dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.bag = nn.EmbeddingBag(11, 4, sparse=True)
            self.linear = nn.Linear(4, 1)
            self.wanted = torch.randn(ROWS, 1)
        self.model = nn.ModuleDict({"bag": self.bag, "linear": self.linear})
        self.steps = 0
        self.after_step: Callable[[int], object] = lambda _step: None
        self.qualities = iter([0.1, 0.2, 0.3, 0.4])

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.AdamW(self.linear.parameters(), lr=0.05),
            RowAdam(self.bag.parameters(), lr=0.05),
        ]

    def measure(self) -> dict[str, float]:
        return {"quality": next(self.qualities)}

    def loss_of(self, rows: NDArray[np.int64], step: NDArray[np.int64]) -> Tensor:
        self.steps += 1
        self.after_step(self.steps)
        ids = torch.from_numpy(rows)[:, None] % 11
        features = nn.functional.dropout(self.bag(ids), self.dropout, self.model.training)
        wanted = self.wanted[torch.from_numpy(rows)]
        return nn.functional.mse_loss(self.linear(features), wanted, reduction="sum") / len(step)

    def run(
        self, checkpoint: Path, settings: LoopSettings = SETTINGS, fingerprint: str = "f"
    ) -> Outcome:
        return train(
            self,
            settings,
            seed=3,
            processes=Processes("cpu"),
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            progress=False,
        )


def weights(problem: Problem) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 7, 10, 18])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, number: signal.Signals, step: int, settings: LoopSettings
) -> None:
    whole = Problem()
    expected = whole.run(tmp_path / "a.pt", settings)
    assert len(expected.history) == 4

    first = Problem()
    first.after_step = lambda done: (
        os.kill(os.getpid(), number) if done == step * settings.accumulate else None
    )
    with pytest.raises(Interrupted, match="goes on from there") as interrupted:
        first.run(tmp_path / "b.pt", settings)
    assert interrupted.value.checkpoint == tmp_path / "b.pt"
    assert first.steps == step * settings.accumulate

    second = Problem()
    for _ in range((step - 1) // 5):
        next(second.qualities)
    torch.manual_seed(99)
    outcome = second.run(tmp_path / "b.pt", settings)
    assert outcome.history == expected.history
    assert whole.steps == first.steps + second.steps
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_accumulated_batches_make_the_same_steps_as_large_ones(tmp_path: Path) -> None:
    large, small = Problem(dropout=0), Problem(dropout=0)
    ours = large.run(tmp_path / "a.pt", LoopSettings(epochs=2, batch_size=12))
    theirs = small.run(tmp_path / "b.pt", LoopSettings(epochs=2, batch_size=3, accumulate=4))
    assert small.steps > 3 * large.steps
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for name, tensor in weights(large).items():
        torch.testing.assert_close(tensor, weights(small)[name])


def test_averaged_weights_are_the_mean_of_those_on_the_way(tmp_path: Path) -> None:
    problem = Problem()
    seen: list[dict[str, Tensor]] = []
    problem.after_step = lambda _done: seen.append(weights(problem))
    settings = LoopSettings(
        epochs=2, batch_size=8, patience=None, average_from=0.5, average_every=2
    )
    problem.run(tmp_path / "run.pt", settings)
    # Averaged: after steps 2 and 4 of the second epoch (seen by the steps after them), and after
    # its last one, which nothing sees: the mean of three tells it.
    for name, mean in weights(problem).items():
        last = 3 * mean - seen[7][name] - seen[9][name]
        assert not torch.allclose(last, mean, atol=1e-6)
        assert torch.allclose(last, seen[9][name], atol=0.2)


def test_without_patience_the_last_weights_are_kept(tmp_path: Path) -> None:
    patient, stubborn = Problem(), Problem()
    for problem in (patient, stubborn):
        problem.qualities = iter([0.9, 0.1, 0.1, 0.1])
    patient.run(tmp_path / "a.pt")
    stubborn.run(tmp_path / "b.pt", LoopSettings(epochs=4, batch_size=8, patience=None))
    assert any(
        not torch.equal(tensor, weights(stubborn)[name])
        for name, tensor in weights(patient).items()
    )


@pytest.mark.parametrize(
    ("schedule", "halfway", "end"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1, 1)]
)
def test_schedules(schedule: Any, halfway: float, end: float) -> None:
    settings = LoopSettings(epochs=1, batch_size=1, warmup=0.2, schedule=schedule)
    assert _schedule(0.1, settings) == pytest.approx(0.5, abs=0.01)
    assert _schedule(0.2, settings) == 1
    assert _schedule(0.6, settings) == pytest.approx(halfway)
    assert _schedule(1.0, settings) == pytest.approx(end)


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    interrupted(tmp_path / "run.pt")
    second = Problem()
    second.run(tmp_path / "run.pt", fingerprint="other")
    assert second.steps == 20


def interrupted(checkpoint: Path) -> None:
    first = Problem()
    first.after_step = lambda done: os.kill(os.getpid(), signal.SIGINT) if done == 7 else None
    with pytest.raises(Interrupted):
        first.run(checkpoint)


def test_a_checkpoint_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    interrupted(checkpoint)
    before = checkpoint.read_bytes()
    second = Problem()
    next(second.qualities)
    settings = replace(SETTINGS, checkpoint_s=-1.0)
    with (
        small_disk(len(before) // 2),
        pytest.raises(SortimentError, match=r"run\.pt cannot be written: .*too large"),
    ):
        second.run(checkpoint, settings)
    assert checkpoint.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("left", [0, 0.5])
def test_a_checkpoint_that_is_torn_is_named(tmp_path: Path, left: float) -> None:
    checkpoint = tmp_path / "run.pt"
    interrupted(checkpoint)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(SortimentError, match=r"cannot be read .*remove .*run\.pt, or give"):
        Problem().run(checkpoint)


def test_a_checkpoint_of_another_number_of_processes_is_not_written_over(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    interrupted(checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "own": state["own"] * 4}, checkpoint)
    with pytest.raises(SortimentError, match=r"by 4 processes, here are 1: start as many, or rem"):
        Problem().run(checkpoint)
    assert len(torch.load(checkpoint, weights_only=True)["own"]) == 4


def test_checkpoints_are_written_on_the_way(tmp_path: Path) -> None:
    problem = Problem()
    seen: list[bool] = []
    problem.after_step = lambda _done: seen.append((tmp_path / "run.pt").exists())
    problem.run(tmp_path / "run.pt", LoopSettings(epochs=1, batch_size=8, checkpoint_s=-1.0))
    assert seen == [False, True, True, True, True]


@pytest.mark.parametrize("killed_at", [12, 14])
def test_a_killed_run_goes_on_from_a_checkpoint_of_some_steps_ago(
    tmp_path: Path, killed_at: int
) -> None:
    whole, first = Problem(), Problem()
    expected = whole.run(tmp_path / "a.pt")

    def after(done: int) -> None:
        if done == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    first.after_step = after
    with pytest.raises(Interrupted):
        first.run(tmp_path / "b.pt")
    earlier = (tmp_path / "b.pt").read_bytes()

    def killed(done: int) -> None:
        if done == killed_at - 9:
            raise KeyboardInterrupt

    second = Problem()
    next(second.qualities)
    second.after_step = killed
    with pytest.raises(KeyboardInterrupt):
        second.run(tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == earlier
    third = Problem()
    next(third.qualities)
    assert third.run(tmp_path / "b.pt").history == expected.history
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(third)[name]), name


def test_fp16_scales_losses_and_comes_to_the_same(tmp_path: Path) -> None:
    problem, plain = Problem(dropout=0), Problem(dropout=0)
    ours = problem.run(tmp_path / "a.pt", replace(SETTINGS, precision="fp16"))
    theirs = plain.run(tmp_path / "b.pt", SETTINGS)
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(tensor, weights(problem)[name], rtol=1e-3, atol=1e-4)


def test_the_best_weights_are_kept_and_a_run_without_progress_stops(tmp_path: Path) -> None:
    problem = Problem()
    problem.qualities = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    after: list[dict[str, Tensor]] = []
    problem.after_step = lambda done: after.append(weights(problem)) if done % 5 == 1 else None
    outcome = problem.run(tmp_path / "run.pt", LoopSettings(epochs=6, batch_size=8, patience=2))
    assert (outcome.best_epoch, outcome.best_quality, outcome.epochs) == (1, 0.9, 4)
    # What the third epoch started from is what the second came to.
    for name, tensor in weights(problem).items():
        assert torch.equal(tensor, after[2][name])


def test_former_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Problem().run(tmp_path / "run.pt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_small_data_set_is_passed_more_often() -> None:
    settings = LoopSettings(epochs=3, batch_size=8, min_steps=20)
    assert num_epochs(settings, 5) == 4
    assert num_epochs(settings, 100) == 3
