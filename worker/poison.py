"""A failed batch is cut until it runs or the product at fault is alone.

Out of memory is no product's fault: halves are tried until they fit. Any other failure is bisected
the same way; what fails alone is the poison.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeVar

import torch

__all__ = ["Divisible", "cut_to_poison", "is_out_of_memory"]

_log = logging.getLogger(__name__)

B = TypeVar("B", bound="Divisible")
R = TypeVar("R")


class Divisible(Protocol):
    """What can be cut in two: a batch, a list of products."""

    def __len__(self) -> int: ...

    def halves(self: B) -> tuple[B, B]:
        """Two parts, in order, neither empty."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed where this one failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


async def cut_to_poison(
    batch: B, run: Callable[[B], Awaitable[R]], error: Exception
) -> AsyncGenerator[tuple[B, R | Exception], None]:
    """Run a batch that has failed once, in parts; each product is in exactly one part.

    Args:
        batch: the failed batch.
        run: runs a part.
        error: how the batch failed.

    Yields:
        Parts in order, each with its result, or with its error where it is a single product.
    """
    if len(batch) == 1:
        yield batch, error
        return
    _log.warning(
        "a batch of %d failed (%s: %s): trying its halves", len(batch), type(error).__name__, error
    )
    for half in batch.halves():
        try:
            result = await run(half)
        except Exception as half_error:  # noqa: BLE001  any failure of a model is narrowed down
            async for part in cut_to_poison(half, run, half_error):
                yield part
        else:
            yield half, result
