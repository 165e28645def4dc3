"""The one training loop: batches, schedule, checkpoints, early stopping, resume.

A run is a function of its settings, data and seed. A checkpoint holds all that it has come to
(weights, optimisers, random state, best weights), so a run that was interrupted ends with the
same weights as one that was not.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from models.errors import SortimentError

__all__ = ["Interrupted", "LoopConfig", "Outcome", "epoch_batches", "train"]

# Batches that are sorted by length together: enough for little padding, few enough to stay random.
_BATCHES_A_POOL = 32
_CLIP_NORM = 1.0


class Interrupted(SortimentError):
    """A run that was told to stop; what it had come to is kept at ``checkpoint``."""

    exit_code = 130

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(
            f"interrupted; the run is kept at {checkpoint}: the same command goes on from there"
        )
        self.checkpoint = checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long and in which steps to train.

    Attributes:
        min_steps: epochs are added until there are so many steps: a small data set has few a pass.
        patience: epochs without a better quality on valid before the run stops.
        warmup: share of all steps over which the learning rates rise from 0.
        checkpoint_s: seconds between checkpoints; one is also written when interrupted.
    """

    epochs: int
    batch_size: int
    seed: int
    min_steps: int = 0
    patience: int = 3
    warmup: float = 0.1
    checkpoint_s: float = 120.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 1:
            raise ValueError(
                "epochs, batch_size and patience must be positive, got "
                f"{self.epochs}, {self.batch_size}, {self.patience}"
            )

    def num_epochs(self, num_rows: int) -> int:
        """Epochs at most over so many rows."""
        return max(self.epochs, math.ceil(self.min_steps / math.ceil(num_rows / self.batch_size)))


@dataclass(slots=True)
class Outcome:
    """What a run came to. ``history`` holds the measures of each epoch, in order."""

    best_epoch: int = -1
    best_quality: float = -math.inf
    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def epoch_batches(
    num_rows: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    lengths: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Every row once, in random batches that only ``seed`` and ``epoch`` decide.

    Args:
        lengths: [N]; rows of like length share a batch where it is given (less padding).
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(num_rows)
    if lengths is not None:
        pool = batch_size * _BATCHES_A_POOL
        order = np.concatenate(
            [
                part[np.argsort(lengths[part], kind="stable")]
                for part in (order[first : first + pool] for first in range(0, num_rows, pool))
            ]
            or [order]
        )
    batches = [order[first : first + batch_size] for first in range(0, num_rows, batch_size)]
    if lengths is not None:
        batches = [batches[place] for place in random.permutation(len(batches))]
    return batches


def train(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    measure: Callable[[], Mapping[str, float]],
    *,
    config: LoopConfig,
    num_rows: int,
    lengths: NDArray[np.int64] | None = None,
    checkpoint: Path,
    fingerprint: str,
    progress: bool = True,
) -> Outcome:
    """Train ``model`` in place and leave it with its best weights.

    Args:
        model: all parameters and buffers that training may change.
        optimizers: with their peak learning rates set; they share one schedule, linear up over
            the warm-up, cosine down to 0.
        loss_of: the loss of a batch of row numbers [B].
        measure: measures on valid; ``quality`` among them is to rise.
        checkpoint: file to keep the run in; removed by whoever publishes the outcome.
        fingerprint: of settings and data: a checkpoint of another run is not taken.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
    """
    steps = math.ceil(num_rows / config.batch_size)
    epochs = config.num_epochs(num_rows)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    run = _Run(model, optimizers, checkpoint, fingerprint)
    torch.manual_seed(config.seed)
    run.resume()
    written = time.monotonic()
    with _stop_requested() as stop_requested:
        while run.epoch < epochs and not run.out_of_patience(config.patience):
            batches = epoch_batches(
                num_rows, config.batch_size, seed=config.seed, epoch=run.epoch, lengths=lengths
            )
            model.train()
            with tqdm(
                total=len(batches),
                initial=run.step,
                desc=f"epoch {run.epoch + 1}/{epochs}",
                unit="batch",
                disable=not progress,
            ) as bar:
                while run.step < len(batches):
                    done = (run.epoch * steps + run.step) / (epochs * steps)
                    _set_rates(optimizers, peaks, _schedule(done, config.warmup))
                    run.total_loss += _step(model, optimizers, loss_of(batches[run.step]))
                    run.step += 1
                    bar.update()
                    if stop_requested():
                        run.save()
                        raise Interrupted(checkpoint)
                    if time.monotonic() - written > config.checkpoint_s:
                        run.save()
                        written = time.monotonic()
            model.eval()
            run.end_epoch(measure(), steps)
            if progress:
                tqdm.write(_line(run.outcome), file=sys.stderr)
    model.load_state_dict(run.best)
    model.eval()
    return run.outcome


class _Run:
    """Where a run stands; what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        checkpoint: Path,
        fingerprint: str,
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._checkpoint = checkpoint
        self._fingerprint = fingerprint
        self.epoch = 0
        self.step = 0
        self.total_loss = 0.0
        self.outcome = Outcome()
        self.best: dict[str, Tensor] = model.state_dict()

    def out_of_patience(self, patience: int) -> bool:
        return self.epoch - 1 - self.outcome.best_epoch >= patience and self.epoch > 0

    def end_epoch(self, measures: Mapping[str, float], steps: int) -> None:
        self.outcome.history.append({"loss": self.total_loss / max(1, steps), **measures})
        if measures["quality"] > self.outcome.best_quality:
            self.outcome.best_quality = measures["quality"]
            self.outcome.best_epoch = self.epoch
            self.best = copy.deepcopy(self._model.state_dict())
        self.epoch += 1
        self.outcome.epochs = self.epoch
        self.step = 0
        self.total_loss = 0.0

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "epoch": self.epoch,
            "step": self.step,
            "total_loss": self.total_loss,
            "best_epoch": self.outcome.best_epoch,
            "best_quality": self.outcome.best_quality,
            "history": self.outcome.history,
            "model": self._model.state_dict(),
            "best": self.best if self.outcome.best_epoch >= 0 else None,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one of this run."""
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        if state["fingerprint"] != self._fingerprint:
            return
        self.epoch, self.step = state["epoch"], state["step"]
        self.total_loss = state["total_loss"]
        self.outcome = Outcome(
            state["best_epoch"], state["best_quality"], self.epoch, state["history"]
        )
        self._model.load_state_dict(state["model"])
        if state["best"] is not None:
            self.best = state["best"]
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"])
        if state["device_random"]:
            torch.cuda.set_rng_state_all(state["device_random"])


def _step(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> float:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    dense = [p for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
    nn.utils.clip_grad_norm_(dense, _CLIP_NORM)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def _schedule(done: float, warmup: float) -> float:
    """Share of the peak learning rate when ``done`` of all steps are done."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _set_rates(
    optimizers: Sequence[torch.optim.Optimizer], peaks: Sequence[Sequence[float]], share: float
) -> None:
    for optimizer, rates in zip(optimizers, peaks, strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share


def _line(outcome: Outcome) -> str:
    measures = " ".join(f"{name} {value:.4f}" for name, value in outcome.history[-1].items())
    best = " (best)" if outcome.best_epoch == outcome.epochs - 1 else ""
    return f"epoch {outcome.epochs}: {measures}{best}"


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one ends the process as usual."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _frame: object) -> None:
        requested.set()
        signal.signal(number, former[signal.Signals(number)])

    for number in former:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
