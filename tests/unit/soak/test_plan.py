from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.soak.plan import KINDS, plan


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_has_all_kinds_alike_often(seed: int) -> None:
    faults = plan(seed, 3600)
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert min(counts.values()) >= 20


def test_faults_come_in_order_and_leave_the_end_at_rest() -> None:
    times = [fault.at_s for fault in plan(1, 900)]
    assert times == sorted(times)
    assert all(later - earlier >= 18 for earlier, later in itertools.pairwise(times))
    assert times[-1] <= 870


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    assert plan(3, 600) == plan(3, 600)
    assert plan(3, 600) != plan(4, 600)


def test_a_short_run_has_what_fits() -> None:
    assert len(plan(1, 60)) in (1, 2)
    assert plan(1, 30) == []
