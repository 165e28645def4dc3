"""The one training loop: batches, schedule, averages, checkpoints, early stopping, resume.

A run is a function of its settings, data and seed. A checkpoint holds all that it has come to
(weights, optimisers, random state, averaged and best weights), so a run that was interrupted ends
with the same weights as one that was not.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from models.errors import SortimentError
from training.batches import epoch_batches, shares
from training.loop_state import Outcome, RunState
from training.processes import Processes
from training.recipe import LoopSettings
from training.row_adagrad import RowAdagrad
from training.row_adam import RowAdam
from training.scalars import Scalars
from training.system import Learner

__all__ = ["Interrupted", "num_epochs", "train"]


class Interrupted(SortimentError):
    """A run that was told to stop; what it had come to is kept at ``checkpoint``."""

    exit_code = 130

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(
            f"interrupted; the run is kept at {checkpoint}: the same command goes on from there"
        )
        self.checkpoint = checkpoint


def num_epochs(settings: LoopSettings, steps_an_epoch: int) -> int:
    """Epochs at most."""
    return max(settings.epochs, math.ceil(settings.min_steps / max(1, steps_an_epoch)))


def train(
    learner: Learner,
    settings: LoopSettings,
    *,
    seed: int,
    processes: Processes,
    checkpoint: Path,
    fingerprint: str,
    scalars: Scalars | None = None,
    progress: bool = True,
    keep_end: bool = False,
) -> Outcome:
    """Train a learner's model in place; leave it with its best weights, or its last ones.

    Args:
        checkpoint: file to keep the run in; removed by whoever publishes the outcome.
        fingerprint: of settings and data: a checkpoint of another run is not taken.
        scalars: takes loss, rate and measures on the way.
        progress: show bars on standard error.
        keep_end: write the checkpoint at the end too: what follows takes long.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
    """
    model = learner.model
    optimizers = learner.optimizers()
    scaler = torch.amp.GradScaler(processes.device.type, enabled=settings.precision == "fp16")
    steps_of = _Steps(learner, settings, seed, processes)
    epochs = num_epochs(settings, steps_of.an_epoch)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    run = RunState(model, optimizers, scaler, settings, checkpoint, fingerprint, processes)
    torch.manual_seed(seed + processes.rank)
    run.resume()
    if scalars is not None:
        scalars.begin(
            run.epoch * steps_of.an_epoch + run.step, measured=run.step < steps_of.an_epoch
        )
    loss_of = processes.wrapped(_LossOf(learner))
    written = time.monotonic()
    with _stop_requested() as stop_requested:
        while run.epoch < epochs and not run.out_of_patience():
            batches = steps_of.batches(run.epoch)
            model.train()
            with tqdm(
                total=len(batches),
                initial=run.step,
                desc=f"epoch {run.epoch + 1}/{epochs}",
                unit="batch",
                disable=not progress,
            ) as bar:
                while run.step < len(batches):
                    done = (run.epoch * len(batches) + run.step) / (epochs * len(batches))
                    share = _schedule(done, settings)
                    _set_rates(optimizers, peaks, share)
                    batch = batches[run.step]
                    pieces, weight = steps_of.pieces(batch)
                    loss = _step(
                        loss_of, optimizers, batch, pieces, weight, scaler, settings, processes
                    )
                    run.end_step(loss, done, is_last=run.step + 1 == len(batches))
                    bar.update()
                    if scalars is not None:
                        step = run.epoch * len(batches) + run.step
                        scalars.step(step, loss=loss, rate=peaks[0][0] * share)
                    is_due = time.monotonic() - written > settings.checkpoint_s
                    stops, dues = processes.sums(stop_requested(), is_due and processes.is_main)
                    if stops or dues:
                        run.save()
                        written = time.monotonic()
                    if stops:
                        raise Interrupted(checkpoint)
            model.eval()
            run.end_epoch(learner.measure, len(batches))
            if scalars is not None:
                scalars.epoch(run.epoch * len(batches), run.outcome.history[-1])
            if progress:
                tqdm.write(_line(run.outcome), file=sys.stderr)
    if keep_end:
        run.save()
    run.finish()
    model.eval()
    return run.outcome


class _LossOf(nn.Module):
    """The learner's loss as a forward pass: the place where processes are averaged."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.model = learner.model
        self._loss_of = learner.loss_of

    def forward(self, rows: NDArray[np.int64], step: NDArray[np.int64]) -> Tensor:
        return self._loss_of(rows, step)


class _Steps:
    """Which rows this process sees in which step."""

    def __init__(
        self, learner: Learner, settings: LoopSettings, seed: int, processes: Processes
    ) -> None:
        self._learner = learner
        self._seed = seed
        self._accumulate = settings.accumulate
        self._processes = processes
        self._size = settings.batch_size * settings.accumulate * processes.count
        self.an_epoch = len(self.batches(0))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of each step, all processes together."""
        learner = self._learner
        return epoch_batches(
            learner.num_rows,
            self._size,
            seed=self._seed,
            epoch=epoch,
            lengths=learner.lengths,
            groups=learner.groups,
        )

    def pieces(self, batch: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], float]:
        """This process's batches of a step, and the weight of each."""
        return shares(
            batch,
            accumulate=self._accumulate,
            rank=self._processes.rank,
            processes=self._processes.count,
        )


def _step(
    loss_of: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: NDArray[np.int64],
    pieces: Sequence[NDArray[np.int64]],
    weight: float,
    scaler: torch.amp.GradScaler,
    settings: LoopSettings,
    processes: Processes,
) -> float:
    """One step of the optimisers; the loss of this process's pieces, with their weight."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for rows in pieces[:-1]:
        with processes.without_averaging(loss_of):
            total += _backward(loss_of(rows, batch) * weight, scaler)
    total += _backward(loss_of(pieces[-1], batch) * weight, scaler)
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    if settings.clip_norm is not None:
        # Not of tables that are moved by rows. Walking a model of hundreds of modules takes longer
        # than a step of a small head.
        dense = [
            parameter
            for optimizer in optimizers
            if not isinstance(optimizer, RowAdagrad | RowAdam)
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        nn.utils.clip_grad_norm_(dense, settings.clip_norm)
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    return total


def _backward(loss: Tensor, scaler: torch.amp.GradScaler) -> float:
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _schedule(done: float, settings: LoopSettings) -> float:
    """Share of the peak learning rate when ``done`` of all steps are done."""
    warmup = settings.warmup
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    left = 1 - (done - warmup) / (1 - warmup)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
    return left if settings.schedule == "linear" else 1.0


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
