"""Checks at the public edge of the ops: shapes, dtypes, devices.

Values inside index tensors are not read here: that would make the host wait for the device at
every call. ``check_masks`` reads them, once for a table of masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "check_batch",
    "check_heads",
    "check_index",
    "check_masks",
    "check_per_label",
    "check_temperature",
]

# float64 is there for gradcheck and for oracles.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_masks(mask_indptr: Tensor, mask_indices: Tensor, num_labels: int) -> None:
    """Read a mask table whole and check what the ops take for granted. Call it once a table.

    Args:
        mask_indptr: [C + 1], int64, from 0 to nnz, never decreasing.
        mask_indices: [nnz], int64, strictly increasing within a row, in [0, num_labels).
        num_labels: L.

    Raises:
        ValueError: naming the first thing amiss.
    """
    check_index("mask_indptr", mask_indptr, None, mask_indptr.device)
    check_index("mask_indices", mask_indices, None, mask_indptr.device)
    if len(mask_indptr) == 0 or int(mask_indptr[0]) != 0:
        raise ValueError("mask_indptr must start with 0")
    if int(mask_indptr[-1]) != len(mask_indices):
        raise ValueError(
            f"mask_indptr ends at {int(mask_indptr[-1])}, mask_indices has {len(mask_indices)}"
        )
    if bool((mask_indptr.diff() < 0).any()):
        raise ValueError("mask_indptr decreases")
    if len(mask_indices) == 0:
        return
    if int(mask_indices.min()) < 0 or int(mask_indices.max()) >= num_labels:
        raise ValueError(f"mask_indices must lie in [0, {num_labels})")
    falls = mask_indices.diff() <= 0
    starts = mask_indptr[1:-1]
    falls[starts[(starts > 0) & (starts < len(mask_indices))] - 1] = False
    if bool(falls.any()):
        raise ValueError("mask_indices must increase strictly within a row")


def check_heads(features: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Features [B, D], weight [L, D], bias [L]: floating, on one device."""
    if features.ndim != 2 or weight.ndim != 2 or bias.ndim != 1:
        raise ValueError(
            "features must be [B, D], weight [L, D] and bias [L], got "
            f"{list(features.shape)}, {list(weight.shape)} and {list(bias.shape)}"
        )
    if features.shape[1] != weight.shape[1]:
        raise ValueError(f"features have D = {features.shape[1]}, weight has {weight.shape[1]}")
    if len(bias) != len(weight):
        raise ValueError(f"weight has L = {len(weight)}, bias has {len(bias)}")
    for name, tensor in (("features", features), ("weight", weight), ("bias", bias)):
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{name} must be float32, float16 or bfloat16, got {tensor.dtype}")
        _check_device(name, tensor, features.device)


def check_index(name: str, tensor: Tensor, length: int | None, device: torch.device) -> None:
    """An int64 vector, of ``length`` where given, on ``device``."""
    if tensor.ndim != 1 or tensor.dtype != torch.int64:
        raise ValueError(f"{name} must be a vector of int64, got {tensor.ndim}-d {tensor.dtype}")
    if length is not None and len(tensor) != length:
        raise ValueError(f"{name} must have {length} elements, got {len(tensor)}")
    _check_device(name, tensor, device)


def check_per_label(name: str, tensor: Tensor, weight: Tensor) -> None:
    """A floating value a label."""
    if tensor.shape != weight.shape[:1] or tensor.dtype not in _FLOATS:
        raise ValueError(
            f"{name} must be floating [{len(weight)}], got {tensor.dtype} {list(tensor.shape)}"
        )
    _check_device(name, tensor, weight.device)


def check_temperature(temperature: float) -> None:
    """Positive and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def check_batch(
    mask_indptr: Tensor,
    mask_indices: Tensor,
    mask_rows: Tensor,
    num_entries: int | None,
    features: Tensor,
) -> None:
    """A table of masks, a row for each product, and a bound that is not negative, where given."""
    check_index("mask_indptr", mask_indptr, None, features.device)
    if len(mask_indptr) == 0:
        raise ValueError("mask_indptr must have C + 1 elements, got none")
    check_index("mask_indices", mask_indices, None, features.device)
    check_index("mask_rows", mask_rows, len(features), features.device)
    if num_entries is not None and num_entries < 0:
        raise ValueError(f"num_entries must not be negative, got {num_entries}")


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, expected {device}")
