"""Whether a process that lives through a soak stays as it was after its warm-up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.soak.samples import Sample

__all__ = ["MAX_GROWTH", "MIN_SAMPLES", "Finding", "by_tenth", "judge"]

MAX_GROWTH = 0.05
# Of a median of counts: one more or less is chance. What is lost by each fault is more than that.
_MAX_MORE = 2
# Shares of the run: a quarter is warm-up.
_AFTER_WARM_UP = (0.25, 0.45)
_LAST = (0.80, 1.00)
MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure after the warm-up and at the end: medians.

    Attributes:
        before, after: not a number where there were too few samples to tell.
        allowed: the most that ``after`` may be.
    """

    what: str
    before: float
    after: float
    allowed: float

    @property
    def is_kept(self) -> bool:
        """Whether it did not grow; not where nothing can be said."""
        return self.after <= self.allowed


_COUNTS: dict[str, Callable[[Sample], int]] = {
    "threads": lambda sample: sample.threads,
    "descriptors": lambda sample: sample.descriptors,
    "broker connections": lambda sample: sample.broker_connections,
    "Redis connections": lambda sample: sample.redis_connections,
    "tasks": lambda sample: sample.tasks,
}


def judge(samples: Sequence[Sample], seconds: float, lanes: int) -> list[Finding]:
    """Compare one worker's samples after its warm-up with its last ones.

    Only like is compared with like: samples of a worker that is ready and has its usual share of
    the partitions.

    Args:
        seconds: how long the run took.
        lanes: the usual share.

    Raises:
        ValueError: the samples are of several processes.
    """
    if len({sample.pid for sample in samples}) > 1:
        raise ValueError("the samples are of several processes: the worker was to live throughout")
    at_rest = [sample for sample in samples if sample.is_ready and sample.lanes == lanes]
    windows = [
        [sample for sample in at_rest if start * seconds <= sample.at_s <= end * seconds]
        for start, end in (_AFTER_WARM_UP, _LAST)
    ]
    mebibytes = _medians(windows, lambda sample: sample.rss_bytes / 2**20)
    findings = [Finding("memory, MiB", *mebibytes, mebibytes[0] * (1 + MAX_GROWTH))]
    for what, count in _COUNTS.items():
        medians = _medians(windows, count)
        findings.append(Finding(what, *medians, medians[0] + _MAX_MORE))
    return findings


def by_tenth(samples: Sequence[Sample], seconds: float) -> list[float]:
    """Median memory in each tenth of the run, MiB; not a number where there were no samples."""
    tenths: list[list[float]] = [[] for _ in range(10)]
    for sample in samples:
        tenths[min(9, int(10 * sample.at_s / seconds))].append(sample.rss_bytes / 2**20)
    return [statistics.median(tenth) if tenth else float("nan") for tenth in tenths]


def _medians(
    windows: Sequence[Sequence[Sample]], value: Callable[[Sample], float]
) -> tuple[float, float]:
    before, after = (
        float(statistics.median(map(value, window))) if len(window) >= MIN_SAMPLES else float("nan")
        for window in windows
    )
    return before, after
