"""Where a training run stands: its counts, its averaged and best weights, its checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.errors import SortimentError
from training.processes import Processes
from training.recipe import LoopSettings
from training.whole_files import written_whole

__all__ = ["Outcome", "RunState"]


@dataclass(slots=True)
class Outcome:
    """What a run came to. ``history`` holds the measures of each epoch, in order."""

    best_epoch: int = -1
    best_quality: float = -math.inf
    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class RunState:
    """Where a run stands; what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        settings: LoopSettings,
        checkpoint: Path,
        fingerprint: str,
        processes: Processes,
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._scaler = scaler
        self._settings = settings
        self._checkpoint = checkpoint
        self._fingerprint = fingerprint
        self._processes = processes
        self.epoch = 0
        self.step = 0
        self.total_loss = 0.0
        self.outcome = Outcome()
        self._best: dict[str, Tensor] | None = None
        # Made when averaging begins: a second copy of all weights.
        self._average: AveragedModel | None = None

    def out_of_patience(self) -> bool:
        patience = self._settings.patience
        if patience is None or self.epoch == 0:
            return False
        return self.epoch - 1 - self.outcome.best_epoch >= patience

    def end_step(self, loss: float, done: float, *, is_last: bool) -> None:
        """Count a step; ``done`` of all were done before it."""
        self.total_loss += loss
        self.step += 1
        settings = self._settings
        if settings.average_from is None or done < settings.average_from:
            return
        if is_last or self.step % settings.average_every == 0:
            self._averaged().update_parameters(self._model)

    def end_epoch(self, measure: Callable[[], Mapping[str, float]], steps: int) -> None:
        """Measure (the averaged weights, where there are any) and keep what is best."""
        total = self._processes.sums(self.total_loss)[0] / self._processes.count
        live = self._put_average_in()
        measures = self._processes.of_main(measure)
        self.outcome.history.append({"loss": total / max(1, steps), **measures})
        if measures["quality"] > self.outcome.best_quality:
            self.outcome.best_quality = measures["quality"]
            self.outcome.best_epoch = self.epoch
            if self._settings.patience is not None:
                self._best = copy.deepcopy(self._model.state_dict())
        if live is not None:
            self._model.load_state_dict(live)
        self.epoch += 1
        self.outcome.epochs = self.epoch
        self.step = 0
        self.total_loss = 0.0

    def finish(self) -> None:
        """Put the weights in that the run is to end with."""
        if self._best is not None:
            self._model.load_state_dict(self._best)
        else:
            self._put_average_in()

    def _averaged(self) -> AveragedModel:
        if self._average is None:
            # Buffers too: statistics of batch norm belong to the weights that they were seen with.
            self._average = AveragedModel(self._model, use_buffers=True)
        return self._average

    def _put_average_in(self) -> dict[str, Tensor] | None:
        """Averaged weights for the live ones, which are given back; None: there are none."""
        if self._average is None:
            return None
        live = copy.deepcopy(self._model.state_dict())
        self._model.load_state_dict(self._average.module.state_dict())
        return live

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. All processes take part, the main one writes.

        The sum of losses is each process's own, as is its random state.

        Raises:
            SortimentError: it cannot be written; the last one stays.
        """
        own = self._processes.gathered(
            {
                "total_loss": self.total_loss,
                "random": torch.get_rng_state(),
                "device_random": torch.cuda.get_rng_state_all()
                if torch.cuda.is_available()
                else [],
            }
        )
        if not self._processes.is_main:
            return
        state: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "epoch": self.epoch,
            "step": self.step,
            "best_epoch": self.outcome.best_epoch,
            "best_quality": self.outcome.best_quality,
            "history": self.outcome.history,
            "model": self._model.state_dict(),
            "best": self._best,
            "average": None if self._average is None else self._average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "scaler": self._scaler.state_dict(),
            "own": own,
        }
        with written_whole(self._checkpoint) as fresh, fresh.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                # torch says where it stood, the file what is wrong.
                raise error.__context__ or error from None

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one of this run.

        Raises:
            SortimentError: it cannot be read, or is of another number of processes.
        """
        state = self._processes.of_main(self._read)
        if state is None:
            return
        self.epoch, self.step = state["epoch"], state["step"]
        self.outcome = Outcome(
            state["best_epoch"], state["best_quality"], self.epoch, state["history"]
        )
        self._model.load_state_dict(state["model"])
        self._best = state["best"]
        if state["average"] is not None:
            self._averaged().load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._scaler.load_state_dict(state["scaler"])
        own = state["own"][self._processes.rank]
        self.total_loss = own["total_loss"]
        torch.set_rng_state(own["random"])
        if own["device_random"]:
            torch.cuda.set_rng_state_all(own["device_random"])

    def _read(self) -> dict[str, Any] | None:
        if not self._checkpoint.exists():
            return None
        over = f"remove {self._checkpoint}, or give resume=false, to start over"
        try:
            state: dict[str, Any] = torch.load(
                self._checkpoint, map_location="cpu", weights_only=True
            )
        except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
            raise SortimentError(f"the checkpoint cannot be read ({error}): {over}") from error
        if state["fingerprint"] != self._fingerprint:
            return None
        if len(state["own"]) != self._processes.count:
            raise SortimentError(
                f"the checkpoint was written by {len(state['own'])} processes, here are "
                f"{self._processes.count}: start as many, or {over}"
            )
        return state
