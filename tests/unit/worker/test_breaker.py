"""The circuit breaker on the share of dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from worker.breaker import Breaker, BreakerConfig


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


CONFIG = BreakerConfig(
    max_dead_share=0.5,
    window_events=100,
    min_events=20,
    probe_interval_s=10,
    max_probe_interval_s=30,
    probe_events=5,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(CONFIG, clock)


def test_few_events_say_nothing(breaker: Breaker) -> None:
    breaker.observe(19, 19)
    assert breaker.state == "closed"
    assert breaker.may_take() is None
    assert breaker.why() is None


def test_a_share_at_the_bound_is_the_sellers_fault(breaker: Breaker) -> None:
    breaker.observe(20, 10)
    assert breaker.state == "closed"


def test_a_share_above_the_bound_opens_and_says_why(breaker: Breaker) -> None:
    breaker.observe(20, 11, "model_failed")
    assert breaker.state == "open"
    assert breaker.may_take() == 0
    assert breaker.wait_s() == 10
    assert breaker.why() == (
        "11 of the last 20 events became dead letters (last: model_failed): the fault is hardly "
        "the sellers'; next try in 10 s"
    )


def test_only_the_last_events_count(breaker: Breaker) -> None:
    for _ in range(10):
        breaker.observe(20, 0)
    for _ in range(2):
        breaker.observe(20, 20)
    assert breaker.state == "closed"
    breaker.observe(20, 20)
    assert breaker.state == "open"  # 60 of the last 100


def test_what_was_in_hand_when_it_opened_changes_nothing(breaker: Breaker) -> None:
    breaker.observe(20, 20)
    breaker.observe(100, 0)
    assert breaker.state == "open"


def test_a_probe_that_succeeds_closes(breaker: Breaker, clock: Clock) -> None:
    breaker.observe(20, 20)
    clock.now_s += 10
    assert breaker.wait_s() == 0
    assert breaker.may_take() == 5
    assert breaker.state == "probing"
    assert breaker.why() is not None
    breaker.observe(3, 1)
    assert breaker.may_take() == 2
    breaker.settle()
    assert breaker.state == "probing"  # too few to tell
    breaker.observe(2, 0)
    assert breaker.state == "probing"  # they may die yet
    breaker.settle()
    assert breaker.state == "closed"
    assert breaker.may_take() is None


def test_events_that_die_later_count_against_a_probe(breaker: Breaker, clock: Clock) -> None:
    breaker.observe(20, 20)
    clock.now_s += 10
    assert breaker.may_take() == 5
    breaker.observe(5, 0)
    breaker.observe(0, 4)
    assert breaker.state == "open"


def test_probes_that_fail_come_more_seldom_up_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    breaker.observe(20, 20)
    for wait_s in (10, 20, 30, 30):
        assert breaker.wait_s() == wait_s
        clock.now_s += wait_s
        assert breaker.may_take() == 5
        breaker.observe(5, 5)
    assert breaker.state == "open"
    clock.now_s += 30
    assert breaker.may_take() == 5
    breaker.observe(5, 0)
    breaker.settle()
    breaker.observe(20, 20)
    assert breaker.wait_s() == 10  # from the start again after it had closed


def test_a_share_of_one_never_opens(clock: Clock) -> None:
    breaker = Breaker(BreakerConfig(max_dead_share=1), clock)
    breaker.observe(10_000, 10_000)
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_dead_share": 0}, "max_dead_share must lie in"),
        ({"min_events": 3_000}, "min_events must lie in"),
        ({"probe_events": 0}, "probe_events must be at least 1"),
        ({"probe_interval_s": 600.0}, "probe_interval_s must be positive and at most"),
    ],
)
def test_a_wrong_setting_says_so(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BreakerConfig(**changed)


def test_a_trip_opens_at_once_and_is_probed_like_any_other(breaker: Breaker, clock: Clock) -> None:
    breaker.trip("the device is gone")
    assert breaker.why() == "the device is gone; next try in 10 s"
    breaker.trip("again")
    assert breaker.why() == "the device is gone; next try in 10 s"
    clock.now_s += 10
    assert breaker.may_take() == 5
    breaker.trip("still gone")
    assert breaker.wait_s() == 20
