"""Which implementation of an op runs: ``KERNEL_IMPL=auto|triton|torch``.

``auto`` takes the first registered implementation that can run on the device. An explicit choice
that cannot run raises: a slow twin never stands in silently for a kernel that was asked for.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["CHOICES", "ImplInfo", "implementation", "selected_impls", "use_impl"]

CHOICES = ("auto", "triton", "torch")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImplInfo:
    """One implementation of one op.

    Args:
        op: public op; also the function's name in ``module``.
        name: ``triton`` or ``torch``.
        module: imported at the first use, so that triton is needed only where it runs.
        device_types: where it runs; None: everywhere.
    """

    op: str
    name: str
    module: str
    device_types: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.name not in CHOICES[1:]:
            raise ValueError(f"an implementation is one of {CHOICES[1:]}, got {self.name!r}")

    def runs_on(self, device: torch.device) -> bool:
        """Whether tensors on ``device`` can be given to it."""
        return self.device_types is None or device.type in self.device_types


# The best first: ``auto`` takes the first that runs on the device.
REGISTRY: tuple[ImplInfo, ...] = (
    ImplInfo(op="masked_scores", name="torch", module="kernels.masked_scores_torch"),
    ImplInfo(op="masked_scores_above", name="torch", module="kernels.masked_scores_torch"),
    ImplInfo(op="masked_top_k", name="torch", module="kernels.masked_scores_torch"),
    ImplInfo(op="masked_bce", name="torch", module="kernels.masked_bce_torch"),
)

_state: dict[str, str] = {}
_loaded: dict[tuple[str, str], Callable[..., Any]] = {}
_selected: dict[str, str] = {}


def use_impl(choice: str) -> None:
    """Choose for this process; until then the environment's ``KERNEL_IMPL`` holds, or ``auto``.

    Raises:
        ValueError: not one of ``CHOICES``.
    """
    if choice not in CHOICES:
        raise ValueError(f"KERNEL_IMPL is one of {', '.join(CHOICES)}, got {choice!r}")
    _state["choice"] = choice
    _loaded.clear()
    _selected.clear()


def selected_impls() -> Mapping[str, str]:
    """The implementation in use of every op that ran since the choice, by op and device type."""
    return dict(_selected)


def implementation(op: str, device: torch.device) -> Callable[..., Any]:
    """The function that runs ``op`` on ``device``.

    Raises:
        NotImplementedError: the chosen implementation does not exist or cannot run there.
        ValueError: the environment's ``KERNEL_IMPL`` is not one of ``CHOICES``.
    """
    loaded = _loaded.get((op, device.type))
    if loaded is None:
        if "choice" not in _state:
            use_impl(os.environ.get("KERNEL_IMPL", "auto"))
        info = _choose(op, device, _state["choice"])
        loaded = getattr(importlib.import_module(info.module), info.op)
        _loaded[op, device.type] = loaded
        _selected[f"{op}/{device.type}"] = info.name
        _logger.info("%s on %s runs as %s", op, device.type, info.name)
    return loaded


def _choose(op: str, device: torch.device, choice: str) -> ImplInfo:
    known = [info for info in REGISTRY if info.op == op]
    for info in known:
        if choice in ("auto", info.name) and info.runs_on(device):
            return info
    have = ", ".join(sorted({info.name for info in known})) or "none"
    raise NotImplementedError(
        f"KERNEL_IMPL={choice}: no such implementation of {op} runs on {device.type} "
        f"(there is: {have}); set KERNEL_IMPL=auto or one of these"
    )
