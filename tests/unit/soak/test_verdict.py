"""That the verdict can fail: growth of each kind is found, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.soak.samples import Sample
from tests.soak.verdict import MIN_SAMPLES, by_tenth, judge

SECONDS = 900.0
LANES = 6
SAMPLE = Sample(
    at_s=0.0,
    worker="worker-1",
    pid=7,
    is_ready=True,
    lanes=LANES,
    rss_bytes=500 * 2**20,
    threads=20,
    descriptors=60,
    broker_connections=26,
    redis_connections=2,
    tasks=40,
)
COUNTS = ["threads", "descriptors", "broker_connections", "redis_connections", "tasks"]


def run(of: Callable[[float], Sample] = lambda _: SAMPLE) -> list[Sample]:
    """A sample every five seconds; ``of`` is given the share of the run that is over."""
    times = [5.0 * number for number in range(int(SECONDS / 5) + 1)]
    return [replace(of(at_s / SECONDS), at_s=at_s) for at_s in times]


def not_kept(samples: list[Sample]) -> list[str]:
    return [each.what for each in judge(samples, SECONDS, LANES) if not each.is_kept]


def test_what_stays_as_it_was_is_kept() -> None:
    assert not_kept(run()) == []
    assert [each.what for each in judge(run(), SECONDS, LANES)] == [
        "memory, MiB",
        "threads",
        "descriptors",
        "broker connections",
        "Redis connections",
        "tasks",
    ]


@pytest.mark.parametrize(("growth", "found"), [(0.04, []), (0.07, ["memory, MiB"])])
def test_memory_may_grow_by_a_twentieth_after_the_warm_up(growth: float, found: list[str]) -> None:
    def of(share: float) -> Sample:
        return replace(SAMPLE, rss_bytes=int(SAMPLE.rss_bytes * (1 + growth * (share > 0.5))))

    assert not_kept(run(of)) == found


def test_memory_that_grows_all_the_time_is_found() -> None:
    # By a tenth from beginning to end: 6.5 % between the middles of the two windows.
    def of(share: float) -> Sample:
        return replace(SAMPLE, rss_bytes=int(SAMPLE.rss_bytes * (1 + 0.12 * share)))

    assert not_kept(run(of)) == ["memory, MiB"]


def test_what_grows_during_the_warm_up_is_forgiven() -> None:
    def of(share: float) -> Sample:
        return replace(SAMPLE, rss_bytes=SAMPLE.rss_bytes // (2 if share < 0.25 else 1))

    assert not_kept(run(of)) == []


@pytest.mark.parametrize("field", COUNTS)
def test_one_more_with_each_fault_is_found(field: str) -> None:
    def of(share: float) -> Sample:
        value: int = getattr(SAMPLE, field)
        return replace(SAMPLE, **{field: value + int(6 * share)})

    assert [what.lower().replace(" ", "_") for what in not_kept(run(of))] == [field]


@pytest.mark.parametrize("field", COUNTS)
def test_jitter_of_counts_is_none(field: str) -> None:
    def of(share: float) -> Sample:
        value: int = getattr(SAMPLE, field)
        return replace(SAMPLE, **{field: value + int(1000 * share) % 2})

    assert not_kept(run(of)) == []


def test_samples_with_another_share_of_the_partitions_do_not_count() -> None:
    # All partitions at the end of the run, half the time: 24 connections more, and their memory.
    def of(share: float) -> Sample:
        if share < 0.5 or int(100 * share) % 2:
            return SAMPLE
        return replace(SAMPLE, lanes=12, broker_connections=50, rss_bytes=2 * SAMPLE.rss_bytes)

    assert not_kept(run(of)) == []


def test_a_worker_that_is_never_at_rest_gets_no_good_verdict() -> None:
    few = run(lambda share: replace(SAMPLE, is_ready=share < 0.9))[: -MIN_SAMPLES + 1]
    unready = run(lambda share: replace(SAMPLE, is_ready=share < 0.5))
    assert not_kept(few) == []
    findings = judge(unready, SECONDS, LANES)
    assert not any(each.is_kept for each in findings)
    assert all(math.isnan(each.after) for each in findings)
    assert len(not_kept([])) == len(findings)


def test_samples_of_two_processes_are_no_run() -> None:
    with pytest.raises(ValueError, match="several processes"):
        judge([SAMPLE, replace(SAMPLE, pid=8)], SECONDS, LANES)


def test_memory_by_tenth() -> None:
    def of(share: float) -> Sample:
        return replace(SAMPLE, rss_bytes=(100 + int(10 * share)) * 2**20)

    assert by_tenth(run(of), SECONDS) == pytest.approx([100 + tenth for tenth in range(10)], abs=1)
    assert math.isnan(by_tenth(run()[:10], SECONDS)[9])
