"""One process or several: Hugging Face accelerate, and what the loop asks of it.

``torchrun`` starts the processes, on one machine or several. Every process runs the same code over
its own part of each batch; gradients are averaged in the backward pass. Only the main process
measures, writes and talks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from models.errors import SortimentError

__all__ = ["Processes", "one_process"]

# The others wait while the main process prepares or measures a large data set.
_LONGEST_WAIT = timedelta(hours=12)

Answer = TypeVar("Answer")


class Processes:
    """The processes of a run.

    Attributes:
        device: this process's. rank: its number; 0 is the main process. count: of all.

    Args:
        device: ``auto``, ``cpu``, or a CUDA device, which several processes choose themselves.
        in_parts: a step may leave some parameters out, the same ones in all processes.

    Raises:
        SortimentError: the device is not there, or is not for several processes.
    """

    def __init__(self, device: str = "auto", *, in_parts: bool = False) -> None:
        is_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        self._accelerator = Accelerator(
            cpu=is_cpu,
            mixed_precision="no",  # the encoder's alone, and the loop's scaler: heads stay in fp32
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
                DistributedDataParallelKwargs(
                    broadcast_buffers=False, find_unused_parameters=in_parts
                ),
            ],
        )
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        if self.count == 1:
            self.device = _device("cpu" if is_cpu else device)
            return
        if device not in ("auto", "cpu", "cuda"):
            raise SortimentError(
                f"device={device}: {self.count} processes take a GPU each; give auto, cpu or cuda"
            )
        self.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over all processes."""
        if self.count == 1:
            return model
        wrapped: nn.Module = self._accelerator.prepare_model(model, device_placement=False)
        return wrapped

    def without_averaging(self, model: nn.Module) -> AbstractContextManager[object]:
        """For all but the last of the backward passes that make one step."""
        if self.count == 1:
            return nullcontext()
        quiet: AbstractContextManager[object] = self._accelerator.no_sync(model)
        return quiet

    def sums(self, *values: float) -> tuple[float, ...]:
        """Each value's sum over all processes, the same in all of them."""
        if self.count == 1:
            return values
        ours = torch.tensor(values, dtype=torch.float64, device=self.device)
        return tuple(self._accelerator.reduce(ours, reduction="sum").tolist())

    def of_main(self, make: Callable[[], Answer]) -> Answer:
        """What ``make`` answers in the main process, in all of them."""
        if self.count == 1:
            return make()
        box: list[Answer | None] = [make() if self.is_main else None]
        broadcast_object_list(box)
        answer = box[0]
        return answer  # type: ignore[return-value]  # the main process's, never None's stand-in

    def gathered(self, one: Answer) -> list[Answer]:
        """Every process's ``one``, by rank."""
        if self.count == 1:
            return [one]
        everyones: list[Answer] = gather_object([one])
        return everyones

    def main_first(self) -> AbstractContextManager[object]:
        """The main process of each machine goes through the block before the others."""
        first: AbstractContextManager[object] = self._accelerator.local_main_process_first()
        return first

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()


def one_process(command: str, remedy: str) -> None:
    """Refuse a command that several processes would run each for itself.

    Raises:
        SortimentError: ``torchrun`` started more than one; ``remedy`` says what to do.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SortimentError(f"{command} is for one process: {remedy}")


def _device(name: str) -> torch.device:
    try:
        device = torch.device("cuda" if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SortimentError(f"device={name}: {error}") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
