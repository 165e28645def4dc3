"""What a run writes for TensorBoard: loss and rate by step, measures by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["Scalars"]

# A point a step makes files of hundreds of MB on long runs, and curves that nobody can see.
_EVERY_STEPS = 10


class Scalars:
    """Writes to a folder of its own below ``directory``; a run that goes on adds to its curves."""

    def __init__(self, directory: Path, run: str) -> None:
        self._place = str(directory / run)
        self._writer: SummaryWriter | None = None

    def begin(self, step: int, *, measured: bool = True) -> None:
        """Go on after so many steps; what a killed run wrote of later ones no longer counts.

        Args:
            measured: nothing of this step is to come; else its epoch's measures are.
        """
        self._writer = SummaryWriter(self._place, purge_step=step + measured)

    def step(self, step: int, *, loss: float, rate: float) -> None:
        """After each step of the optimiser; every tenth is written."""
        if step % _EVERY_STEPS == 0:
            self._put("train/loss", loss, step)
            self._put("train/rate", rate, step)

    def epoch(self, step: int, measures: Mapping[str, float]) -> None:
        """After each epoch, ``step`` steps from the beginning of the run."""
        for name, value in measures.items():
            self._put("train/epoch_loss" if name == "loss" else f"valid/{name}", value, step)

    def _put(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            raise RuntimeError("begin was not called")
        self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
