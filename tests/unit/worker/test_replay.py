"""What is due when: at a rate, without one, and up to a bad line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from worker.product_lines import ProductEvent, ProductFileError
from worker.replay import ReplayConfig, Replayed, _chunks

EVENTS = [ProductEvent(b"%d" % number, b"{}") for number in range(5_000)]


class Clock:
    """Stands in for what is being sent: only its clock is asked."""

    elapsed_s = 0.0


def test_without_a_rate_everything_is_due_in_chunks() -> None:
    clock: Any = Clock()
    assert [len(chunk) for chunk in _chunks(EVENTS, None, clock)] == [2_000, 2_000, 1_000]


def test_at_a_rate_only_what_is_due() -> None:
    clock: Any = Clock()
    chunks = _chunks(EVENTS, 100.0, clock)
    assert len(next(chunks)) == 1, "the first one at once"
    assert len(next(chunks)) == 0
    clock.elapsed_s = 0.1
    assert len(next(chunks)) == 10
    clock.elapsed_s = 1_000.0
    assert len(next(chunks)) == 2_000, "what is late is caught up in bounded chunks"


def test_what_came_before_a_bad_line_is_given_first() -> None:
    def events() -> Iterator[ProductEvent]:
        yield from EVENTS[:3]
        raise ProductFileError("file:4: bad")

    clock: Any = Clock()
    chunks = _chunks(events(), None, clock)
    assert list(next(chunks)) == EVENTS[:3]
    with pytest.raises(ProductFileError, match="file:4"):
        next(chunks)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        ReplayConfig(topic="products", rate_per_s=rate)


def test_mean_rate() -> None:
    assert Replayed().events_per_s == 0.0
    assert Replayed(events=10, seconds=2.0).events_per_s == 5.0
