"""What every op is given: one by one as torch's dispatcher takes it, and in records behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from kernels._dispatch import implementation

__all__ = ["Heads", "Masks", "define", "implementation_for", "records", "without_autocast"]


class Heads(NamedTuple):
    """Features [B, D], weight [L, D] and bias [L]."""

    features: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def compute_dtype(self) -> torch.dtype:
        """float32, or float64 where a tensor is."""
        is_double = any(each.dtype == torch.float64 for each in self)
        return torch.float64 if is_double else torch.float32


class Masks(NamedTuple):
    """A table of masks, the row of each product, and what the caller knows of the batch.

    Shapes: indptr [C + 1], indices [nnz], rows [B], all int64.
    """

    indptr: Tensor
    indices: Tensor
    rows: Tensor
    num_entries: int | None
    num_categories: int | None


_SCHEMA = (
    "Tensor features, Tensor weight, Tensor bias, "
    "Tensor mask_indptr, Tensor mask_indices, Tensor mask_rows, "
    "SymInt? num_entries, SymInt? num_categories"
)


def records(given: tuple[Any, ...]) -> tuple[Heads, Masks, tuple[Any, ...]]:
    """An op's arguments as records, and those that only this op has."""
    return Heads(*given[:3]), Masks(*given[3:8]), given[8:]


def implementation_for(part: str, heads: Heads) -> Callable[..., Any]:
    """The function that runs an op, or a part of one, on these heads: see ``implementation``."""
    features, weight, bias = heads
    return implementation(part, features.device, features.dtype, weight.dtype, bias.dtype)


def without_autocast(heads: Heads) -> AbstractContextManager[object]:
    """Dtypes are as the ops say, whatever ``torch.autocast`` is around them."""
    device_type = heads.features.device.type
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def define(
    op: str, options: str, results: str, run: Callable[..., Any] | None = None
) -> CustomOpDef:
    """Register an op with torch: opaque to torch.compile, which plans around it by its fake.

    Args:
        options: schema of the arguments behind those that all ops share.
        results: schema of what it returns.
        run: takes the arguments one by one; None: the op's implementation, given the records.
    """

    def run_as_it_is(*given: Any) -> Any:
        heads, masks, rest = records(given)
        with without_autocast(heads):
            return implementation_for(op, heads)(heads, masks, *rest)

    return torch.library.custom_op(
        f"sortiment::{op}",
        run or run_as_it_is,
        mutates_args=(),
        schema=f"({_SCHEMA}, {options}) -> {results}",
    )
