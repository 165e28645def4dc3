"""When a canary has to go."""

from __future__ import annotations

from typing import Any

import pytest

from worker.canary import CanaryConfig, CanaryWatch

CONFIG = CanaryConfig(
    max_failed_share=0.05, max_review_rise=0.1, min_products=100, window_products=200
)


@pytest.fixture
def watch() -> CanaryWatch:
    return CanaryWatch(CONFIG)


def test_nothing_yet_is_well(watch: CanaryWatch) -> None:
    assert watch.why_return() is None


def test_failures_within_the_share_of_the_least_are_borne(watch: CanaryWatch) -> None:
    watch.failed(5)
    assert watch.why_return() is None
    watch.failed(1)
    assert watch.why_return() == (
        "it failed on 6 of its last 6 products; allowed is a share of 0.05"
    )


def test_old_failures_are_forgotten(watch: CanaryWatch) -> None:
    watch.failed(5)
    for _ in range(20):
        watch.answered(10, 0, by_canary=True)
    watch.failed(5)
    assert watch.why_return() is None
    assert watch.status()["failed"] == 5


def test_more_review_than_the_active_release_is_out_of_bounds(watch: CanaryWatch) -> None:
    watch.answered(100, 30, by_canary=False)
    watch.answered(99, 99, by_canary=True)
    assert watch.why_return() is None  # too few to tell
    watch.answered(1, 1, by_canary=True)
    assert watch.why_return() == (
        "it left 100.0% of its last 100 products to review, the active release 30.0%; allowed is "
        "a rise of 0.1"
    )


def test_as_much_review_as_the_active_release_is_well(watch: CanaryWatch) -> None:
    watch.answered(100, 90, by_canary=False)
    watch.answered(100, 100, by_canary=True)
    assert watch.why_return() is None


def test_the_active_release_must_have_answered_enough_too(watch: CanaryWatch) -> None:
    watch.answered(99, 0, by_canary=False)
    watch.answered(100, 100, by_canary=True)
    assert watch.why_return() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_failed_share": -0.1},
        {"max_review_rise": 1.1},
        {"min_products": 0},
        {"min_products": 3, "window_products": 2},
    ],
)
def test_wrong_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        CanaryConfig(**wrong)
