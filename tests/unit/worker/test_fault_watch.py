"""When failures are ours, and that a probe then judges anew."""

from __future__ import annotations

import pytest

from tests.factories import record
from worker.breaker import Breaker, BreakerConfig
from worker.events import dead_letter
from worker.fault_watch import FaultWatch
from worker.lanes import DeadLetter
from worker.preparing import UNPREPARABLE, Preparation

FAILED = ValueError("the model")


@pytest.fixture
def watch() -> FaultWatch:
    return FaultWatch(Breaker(BreakerConfig(probe_interval_s=1e-9, max_probe_interval_s=1e-9)))


def letters(count: int, reason: str) -> Preparation:
    found: list[tuple[int, DeadLetter]] = [
        (row, dead_letter(record(offset=row), reason, f"detail {row}", "r/1"))
        for row in range(count)
    ]
    return Preparation(batches=[], dead=found)


def probe(watch: FaultWatch) -> None:
    assert watch.state == "open"
    assert watch._breaker.may_take() == 20
    assert watch.state == "probing"


def test_a_model_that_fails_on_all_stops_the_worker(watch: FaultWatch) -> None:
    assert watch.scored([FAILED] * 49)
    assert watch.state == "closed"
    assert not watch.scored([FAILED])
    assert watch.why() is not None
    for _ in range(3):
        probe(watch)
        assert not watch.scored([FAILED] * 20)


def test_a_product_at_fault_does_not_fail_the_probe_after_a_mended_model(
    watch: FaultWatch,
) -> None:
    assert not watch.scored([FAILED] * 50)
    probe(watch)
    assert watch.scored([FAILED, *[object()] * 19])
    assert watch.state == "probing"
    # Nor does one that is alone in its window.
    assert watch.scored([FAILED])


def test_a_preparer_that_fails_on_all_stops_the_worker(watch: FaultWatch) -> None:
    assert watch.prepared(letters(49, UNPREPARABLE))
    assert not watch.prepared(letters(1, UNPREPARABLE))
    assert "last: detail 0" in (watch.why() or "")
    for _ in range(3):
        probe(watch)
        assert not watch.prepared(letters(20, UNPREPARABLE))


def test_other_dead_letters_after_that_are_no_failures_of_the_preparer(watch: FaultWatch) -> None:
    assert not watch.prepared(letters(50, UNPREPARABLE))
    probe(watch)
    assert watch.prepared(letters(1, "tombstone"))
    assert watch.prepared(letters(1, UNPREPARABLE))
    assert watch.state == "probing"


def test_what_succeeds_between_failures_ends_the_row(watch: FaultWatch) -> None:
    for _ in range(3):
        assert watch.scored([*[FAILED] * 49, object()])
    assert watch.state == "closed"
