from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.loop import Interrupted, LoopConfig, Outcome, epoch_batches, train

ROWS = 40
CONFIG = LoopConfig(epochs=4, batch_size=8, seed=3)


class Problem:
    """A small regression with dropout (random state matters) and a sparse embedding."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.bag = nn.EmbeddingBag(11, 4, sparse=True)
            self.linear = nn.Linear(4, 1)
            self.wanted = torch.randn(ROWS, 1)
        self.model = nn.ModuleDict({"bag": self.bag, "linear": self.linear})
        self.optimizers = [
            torch.optim.AdamW(self.linear.parameters(), lr=0.05),
            torch.optim.SparseAdam(self.bag.parameters(), lr=0.05),
        ]
        self.steps = 0
        self.after_step: Callable[[int], object] = lambda _step: None
        self.qualities = iter([0.1, 0.2, 0.3, 0.4])

    def loss_of(self, rows: NDArray[np.int64]) -> Tensor:
        self.steps += 1
        self.after_step(self.steps)
        ids = torch.from_numpy(rows)[:, None] % 11
        features = nn.functional.dropout(self.bag(ids), 0.5, self.model.training)
        return nn.functional.mse_loss(self.linear(features), self.wanted[torch.from_numpy(rows)])

    def run(self, checkpoint: Path, config: LoopConfig = CONFIG, fingerprint: str = "f") -> Outcome:
        return train(
            self.model,
            self.optimizers,
            self.loss_of,
            lambda: {"quality": next(self.qualities)},
            config=config,
            num_rows=ROWS,
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            progress=False,
        )


def weights(problem: Problem) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 7, 10])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, number: signal.Signals, step: int
) -> None:
    whole = Problem()
    whole.run(tmp_path / "a.pt")

    first = Problem()
    first.after_step = lambda done: os.kill(os.getpid(), number) if done == step else None
    with pytest.raises(Interrupted, match="goes on from there") as interrupted:
        first.run(tmp_path / "b.pt")
    assert interrupted.value.checkpoint == tmp_path / "b.pt"
    assert first.steps == step

    second = Problem()
    for _ in range((step - 1) // 5):
        next(second.qualities)
    torch.manual_seed(99)
    outcome = second.run(tmp_path / "b.pt")
    assert outcome.epochs == 4
    assert len(outcome.history) == 4
    assert whole.steps == first.steps + second.steps
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    first = Problem()
    first.after_step = lambda done: os.kill(os.getpid(), signal.SIGINT) if done == 7 else None
    with pytest.raises(Interrupted):
        first.run(tmp_path / "run.pt", fingerprint="one")
    second = Problem()
    second.run(tmp_path / "run.pt", fingerprint="other")
    assert second.steps == 20


def test_checkpoints_are_written_on_the_way(tmp_path: Path) -> None:
    problem = Problem()
    seen: list[bool] = []
    problem.after_step = lambda _done: seen.append((tmp_path / "run.pt").exists())
    problem.run(tmp_path / "run.pt", LoopConfig(epochs=1, batch_size=8, seed=3, checkpoint_s=-1.0))
    assert seen == [False, True, True, True, True]


def test_the_best_weights_are_kept_and_a_run_without_progress_stops(tmp_path: Path) -> None:
    problem = Problem()
    problem.qualities = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    after: list[dict[str, Tensor]] = []
    problem.after_step = lambda done: after.append(weights(problem)) if done % 5 == 1 else None
    outcome = problem.run(
        tmp_path / "run.pt", LoopConfig(epochs=6, batch_size=8, seed=3, patience=2)
    )
    assert (outcome.best_epoch, outcome.best_quality, outcome.epochs) == (1, 0.9, 4)
    # What the third epoch started from is what the second came to.
    for name, tensor in weights(problem).items():
        assert torch.equal(tensor, after[2][name])


def test_former_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Problem().run(tmp_path / "run.pt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 500])
def test_an_epoch_holds_every_row_once(num_rows: int, with_lengths: bool) -> None:
    lengths = np.arange(num_rows)[::-1].copy() if with_lengths else None
    batches = epoch_batches(num_rows, 7, seed=1, epoch=0, lengths=lengths)
    assert all(0 < len(batch) <= 7 for batch in batches)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(num_rows))


def test_batches_follow_seed_and_epoch() -> None:
    one = [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=0)]
    assert one == [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=0)]
    assert one != [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=1)]
    assert one != [batch.tolist() for batch in epoch_batches(50, 7, seed=2, epoch=0)]


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    sorted_spread = [
        np.ptp(lengths[batch])
        for batch in epoch_batches(1000, 10, seed=1, epoch=0, lengths=lengths)
    ]
    assert np.mean(sorted_spread) < 10


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        LoopConfig(epochs=0, batch_size=1, seed=0)


def test_a_small_data_set_is_passed_more_often() -> None:
    config = LoopConfig(epochs=3, batch_size=8, seed=0, min_steps=20)
    assert config.num_epochs(40) == 4
    assert config.num_epochs(33) == 4
    assert config.num_epochs(800) == 3
