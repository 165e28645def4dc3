"""Which rows are in which batch: a function of the seed and the epoch alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_batches", "shares"]

# Batches that are sorted by length together: enough for little padding, few enough to stay random.
_BATCHES_A_POOL = 32

Rows = NDArray[np.int64]


def epoch_batches(
    num_rows: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    lengths: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> list[Rows]:
    """Every row once, in random batches.

    Args:
        lengths: [N]; rows of like length share a batch where it is given (less padding).
        groups: [N]; only rows of one group share a batch where it is given.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(num_rows)
    parts = [order]
    if groups is not None:
        order = order[np.argsort(groups[order], kind="stable")]
        parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    if lengths is not None:
        pool = batch_size * _BATCHES_A_POOL
        pools = [
            part[first : first + pool] for part in parts for first in range(0, len(part), pool)
        ]
        parts = [each[np.argsort(lengths[each], kind="stable")] for each in pools]
    batches = [
        part[first : first + batch_size]
        for part in parts
        for first in range(0, len(part), batch_size)
    ]
    if lengths is not None or groups is not None:
        batches = [batches[place] for place in random.permutation(len(batches))]
    return batches


def shares(batch: Rows, *, accumulate: int, rank: int, processes: int) -> tuple[list[Rows], float]:
    """A process's part of a batch in ``accumulate`` pieces, and the weight of each.

    A piece's loss is its part of the batch's mean. With the weight the sum over the pieces,
    averaged over the processes, is that mean. A process that a small batch leaves without
    products computes one for nothing: all must take part in every step.
    """
    ours = batch[rank::processes]
    if len(ours) == 0:
        return [batch[:1]], 0.0
    return np.array_split(ours, min(accumulate, len(ours))), float(processes)
