"""What swaps did to the outputs: each product's result, the release that made it, and gaps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.swaps.outputs import Outputs
from benchmarks.swaps.probe import Batches, batch_in_hand_s

__all__ = ["Gap", "Swap", "gaps_of_swaps", "ordinary_gaps_ms", "unlike_once", "wrong_release"]

# The outputs that a swap may hold up come by then.
_AFTERWARDS_S = 5.0


@dataclass(frozen=True, slots=True)
class Swap:
    """When a release became the active one, epoch seconds.

    Attributes:
        number: of the release; the first, with which the worker starts, is 0.
        unseen_s: when ``/status`` was last asked that still named the one before.
        seen_s: when it first named this one.
    """

    number: int
    announced_s: float
    unseen_s: float
    seen_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without any output while a release was being swapped in.

    Attributes:
        in_hand_ms: the longest batch that the model ran meanwhile; 0 where none ended.
    """

    swap: int
    gap_ms: float
    in_hand_ms: float

    @property
    def beyond_ms(self) -> float:
        """What is left of the gap without the batch."""
        return max(0.0, self.gap_ms - self.in_hand_ms)


def unlike_once(outputs: Outputs, ends: Mapping[int, int]) -> tuple[int, int]:
    """How many input events have no output, and how many more than one.

    Args:
        ends: the number of events of each input partition.
    """
    lost = twice = 0
    for partition, end in ends.items():
        offsets = outputs.offset[outputs.partition == partition]
        counts = np.bincount(offsets, minlength=end)
        lost += int((counts[:end] == 0).sum())
        twice += int((counts > 1).sum())
    return lost, twice


def wrong_release(outputs: Outputs, swaps: Sequence[Swap], max_in_flight: int) -> int:
    """Outputs whose release was not active at any time from their window's poll to their emission.

    A release is wrong that was never announced, or not yet active when the output was written, or
    older than that of an earlier offset of the partition: windows are polled in offset order. Of an
    older release's outputs that were written after the next one was seen to be active, no more can
    have been polled before than are let in flight.
    """
    unseen_ms = np.array([swap.unseen_s for swap in swaps]) * 1000
    release, known = outputs.release, outputs.release >= 0
    wrong = ~known
    wrong[known] |= outputs.at_ms[known] < np.floor(unseen_ms[release[known]])
    for partition in np.unique(outputs.partition):
        rows = np.flatnonzero(outputs.partition == partition)
        rows = rows[np.argsort(outputs.offset[rows], kind="stable")]
        wrong[rows] |= release[rows] < np.maximum.accumulate(release[rows])
    late = 0
    for before, after in itertools.pairwise(swaps):
        stale = (release == before.number) & (outputs.at_ms > after.seen_s * 1000)
        late += max(0, int(stale.sum()) - max_in_flight)
    return int(wrong.sum()) + late


def gaps_of_swaps(
    topics: Sequence[Outputs], swaps: Sequence[Swap], batches: list[Batches]
) -> list[Gap]:
    """For each swap the longest gap between its announcement and the next one's."""
    moments = _moments(topics)
    found = []
    for index, swap in enumerate(swaps):
        is_last = index + 1 == len(swaps)
        end_s = swap.seen_s + _AFTERWARDS_S if is_last else swaps[index + 1].announced_s
        # The gaps that begin or end in the span, or enclose it.
        first = max(0, int(np.searchsorted(moments, swap.announced_s * 1000)) - 1)
        last = int(np.searchsorted(moments, end_s * 1000)) + 1
        around = moments[first:last]
        if len(around) < 2:
            raise ValueError(f"swap {swap.number}: no outputs around it, so no gap to speak of")
        longest = int(np.argmax(np.diff(around)))
        start_ms, stop_ms = float(around[longest]), float(around[longest + 1])
        in_hand_s = batch_in_hand_s(batches, start_ms / 1000, stop_ms / 1000)
        found.append(Gap(swap.number, stop_ms - start_ms, in_hand_s * 1000))
    return found


def ordinary_gaps_ms(
    topics: Sequence[Outputs], spans: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """Gaps between successive outputs within spans of time in which nothing was swapped."""
    moments = _moments(topics)
    parts = [
        np.diff(moments[(moments >= start_s * 1000) & (moments <= end_s * 1000)])
        for start_s, end_s in spans
    ]
    return np.concatenate(parts).astype(np.float64)


def _moments(topics: Sequence[Outputs]) -> NDArray[np.int64]:
    """The distinct times at which something came out, in order."""
    return np.unique(np.concatenate([outputs.at_ms for outputs in topics]))
