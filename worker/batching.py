"""Cuts one window of products into batches. A pure function: no clock, no queue, no device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CPU_BATCH_TOKENS", "GPU_BATCH_TOKENS", "BatchingConfig", "plan_batches"]

# A CPU's caches hold no more: MiniLM took a quarter more time a product with four times as many.
CPU_BATCH_TOKENS = 1_024
GPU_BATCH_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingConfig:
    """Bounds of one batch.

    Attributes:
        max_batch_tokens: largest cost of a batch, padding included: the largest cost of a product
            in it times its number of products.
        max_batch_products: largest number of products in a batch.
    """

    max_batch_tokens: int = GPU_BATCH_TOKENS
    max_batch_products: int = 1_024

    def __post_init__(self) -> None:
        for name in ("max_batch_tokens", "max_batch_products"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def plan_batches(costs: NDArray[np.int32], config: BatchingConfig) -> list[NDArray[np.int64]]:
    """Every product of a window for one release in exactly one batch, those of like cost together.

    Args:
        costs: [N], int32, at least 1 each.
        config: the bounds.

    Returns:
        Row numbers of each batch, int64. No batch is over a bound, unless a single product is over
        ``max_batch_tokens``: it goes alone. Ties keep their order. Each batch holds the first row
        that no batch before it holds, so that each lets at least one product go on: results leave
        in the order of the rows.
    """
    order = np.argsort(-costs.astype(np.int64), kind="stable").astype(np.int64, copy=False)
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        # The first of the batch is its dearest: all others are padded to it.
        fits = max(1, config.max_batch_tokens // max(1, int(costs[order[start]])))
        size = min(fits, config.max_batch_products)
        batches.append(order[start : start + size])
        start += size
    return sorted(batches, key=lambda rows: int(rows.min()))
