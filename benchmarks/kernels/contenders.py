"""What is compared at a point: a name, a call that is ready to run, what it may need."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from benchmarks.kernels.problems import Batch

__all__ = ["Call", "Contender", "is_baseline"]

# Scores in entry order; or loss, then gradients of features, weight and bias.
Call = Callable[[], tuple[Tensor, ...]]


def _needs_nothing(_: Batch) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Contender:
    """One implementation of an op.

    Attributes:
        name: as in the table; ``baseline_`` before what is not ours.
        prepare: batch to call; what a caller would know beforehand is done here, untimed.
        scope: entered around every call: forces a variant.
        bytes_needed: a lower bound on the memory of a call: what does not fit is not tried.
        capturable: whether the call can go into a CUDA graph.
    """

    name: str
    prepare: Callable[[Batch], Call]
    scope: Callable[[], AbstractContextManager[object]] = nullcontext
    bytes_needed: Callable[[Batch], int] = _needs_nothing
    capturable: bool = False


def is_baseline(name: str) -> bool:
    """Whether a row is somebody else's way."""
    return name.startswith("baseline_")
