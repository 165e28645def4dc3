"""What a system is to everything around it: the loop, ``run``, ``compare`` and a release.

A system is a kind of model with its way of learning (``flagship``, ``ave_bert``, ...). The loop,
the data and the processes know only what is written here; a new system is a settings class in
``recipe.py``, a module that makes one, and a line in ``_SYSTEMS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.labels import LabelSpace
from models.prepare import Preparer
from models.taxonomy import Taxonomy
from training.recipe import Recipe

if TYPE_CHECKING:
    # Data files are read through libraries that the systems do not need.
    from training.prepared import SplitOnDisk
    from training.processes import Processes

__all__ = ["Job", "Learner", "System", "make_system"]

_SYSTEMS: Mapping[str, tuple[str, str]] = {
    "ave_bert": ("training.ave_bert", "AveBertSystem"),
    "dhpc": ("training.dhpc", "DhpcSystem"),
    "flagship": ("training.flagship", "FlagshipSystem"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What a system is made for."""

    recipe: Recipe
    taxonomy: Taxonomy
    processes: Processes

    @property
    def device(self) -> torch.device:
        """Where this process's model runs."""
        return self.processes.device

    @property
    def shows_progress(self) -> bool:
        """Whether this process shows bars; ``run`` has settled what the recipe left open."""
        return bool(self.recipe.progress) and self.processes.is_main


class Learner(Protocol):
    """A network with its training and valid splits: what the loop trains.

    Attributes:
        model: all parameters and buffers that training may change.
        num_rows: of the training split.
        lengths: [N], int64: rows of like length share a batch; None: any rows do.
        groups: [N], int64: only rows of one group share a batch; None: any rows do.
    """

    model: nn.Module
    num_rows: int
    lengths: NDArray[np.int64] | None
    groups: NDArray[np.int64] | None

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """With their peak learning rates set; each parameter in one of them."""
        ...

    def loss_of(self, rows: NDArray[np.int64], step: NDArray[np.int64] | None = None) -> Tensor:
        """The part of training rows [B] in the mean loss over a step, a scalar.

        Args:
            step: all rows of the step, these among them; None: these are all.
        """
        ...

    def measure(self) -> Mapping[str, float]:
        """Measures on valid; ``quality`` among them is to rise."""
        ...


class System(Protocol):
    """A kind of model, ready for a data set."""

    @property
    def categories(self) -> LabelSpace:
        """What its category scores stand for."""
        ...

    @property
    def labels(self) -> LabelSpace:
        """What its label scores stand for."""
        ...

    @property
    def preparer(self) -> Preparer:
        """Products to arrays."""
        ...

    @property
    def preparer_key(self) -> str:
        """Names all that decides what ``preparer`` answers."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Beside settings and data all that decides the weights, as JSON has it."""
        ...

    def learn(self, train: SplitOnDisk, valid: SplitOnDisk) -> Learner:
        """Make ready for training; called once."""
        ...

    def publish(self, out: Path, epochs: int) -> dict[str, float]:
        """Calibrate the trained network on valid and write its release.

        Returns:
            Measures on valid, as served.
        """
        ...


def make_system(job: Job) -> System:
    """The recipe's system, on the job's device."""
    module, name = _SYSTEMS[job.recipe.system.kind]
    made: System = getattr(importlib.import_module(module), name)(job)
    return made
