"""Which implementation of an op runs: ``KERNEL_IMPL=auto|triton|torch``.

``auto`` takes the first registered implementation that can run on the device, with these dtypes.
An explicit choice that cannot run raises: a slow twin never stands in silently for a kernel that
was asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

__all__ = ["CHOICES", "ImplInfo", "implementation", "is_interpreted", "selected_impls", "use_impl"]

CHOICES = ("auto", "triton", "torch")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImplInfo:
    """One implementation of one op.

    Args:
        op: public op, or its part; also the function's name in ``module``.
        name: ``triton`` or ``torch``.
        module: imported at the first use, so that triton is needed only where it runs.
        device_types: where it runs; None: everywhere.
        dtypes: what it takes; None: all that the op does.
    """

    op: str
    name: str
    module: str
    device_types: frozenset[str] | None = None
    dtypes: frozenset[torch.dtype] | None = None

    def __post_init__(self) -> None:
        if self.name not in CHOICES[1:]:
            raise ValueError(f"an implementation is one of {CHOICES[1:]}, got {self.name!r}")

    def runs_on(self, device_type: str, dtypes: Iterable[torch.dtype]) -> bool:
        """Whether tensors of these dtypes on such a device can be given to it."""
        if self.name == "triton" and not _has_triton():
            return False
        on_device = self.device_types is None or device_type in self.device_types
        return on_device and (self.dtypes is None or self.dtypes.issuperset(dtypes))


def _pair(op: str, module: str) -> tuple[ImplInfo, ImplInfo]:
    triton = ImplInfo(
        op=op,
        name="triton",
        module=f"kernels.{module}_triton",
        device_types=frozenset({"cuda"}),
        dtypes=frozenset({torch.float32, torch.float16, torch.bfloat16}),
    )
    return triton, ImplInfo(op=op, name="torch", module=f"kernels.{module}_torch")


# The best first: ``auto`` takes the first that runs on the device.
REGISTRY: tuple[ImplInfo, ...] = (
    *_pair("masked_scores", "masked_scores"),
    *_pair("masked_scores_above", "masked_scores"),
    *_pair("masked_top_k", "masked_scores"),
    *_pair("masked_bce_forward", "masked_bce"),
    *_pair("masked_bce_backward", "masked_bce"),
)

_state: dict[str, str] = {}
_loaded: dict[tuple[Any, ...], Callable[..., Any]] = {}
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


def implementation(op: str, device: torch.device, *dtypes: torch.dtype) -> Callable[..., Any]:
    """The function that runs ``op`` on ``device`` with tensors of ``dtypes``.

    Raises:
        NotImplementedError: the chosen implementation does not exist or cannot run there.
        ValueError: the environment's ``KERNEL_IMPL`` is not one of ``CHOICES``.
    """
    loaded = _loaded.get((op, device.type, *dtypes))
    if loaded is None:
        if "choice" not in _state:
            use_impl(os.environ.get("KERNEL_IMPL", "auto"))
        info = _choose(op, device.type, dtypes, _state["choice"])
        loaded = getattr(importlib.import_module(info.module), info.op)
        _loaded[op, device.type, *dtypes] = loaded
        if _selected.get(f"{op}/{device.type}") != info.name:
            _selected[f"{op}/{device.type}"] = info.name
            _logger.info("%s on %s runs as %s", op, device.type, info.name)
    return loaded


def _choose(op: str, device_type: str, dtypes: tuple[torch.dtype, ...], choice: str) -> ImplInfo:
    known = [info for info in REGISTRY if info.op == op]
    if choice == "triton" and device_type == "cpu" and is_interpreted():
        # Asked for by name: the interpreter runs the kernels on a CPU, as a GPU would.
        device_type = "cuda"
    for info in known:
        if choice in ("auto", info.name) and info.runs_on(device_type, dtypes):
            return info
    have = ", ".join(sorted({info.name for info in known})) or "none"
    given = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    raise NotImplementedError(
        f"KERNEL_IMPL={choice}: no such implementation of {op} runs on {device_type} with "
        f"{given or 'any dtype'} (there is: {have}); set KERNEL_IMPL=auto or one of these"
    )


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"
