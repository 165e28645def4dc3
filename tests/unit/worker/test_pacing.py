"""What is due when: at a rate, without one, and up to a bad line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from worker.event_sources import Limited, Listed, OutEvent
from worker.pacing import PaceConfig, Sent, chunks
from worker.product_lines import ProductEvent, ProductFileError

EVENTS = [ProductEvent(b"%d" % number, b"{}") for number in range(5_000)]


async def test_without_a_rate_everything_is_due_in_chunks() -> None:
    assert [len(chunk) async for chunk in chunks(Listed(EVENTS))] == [2_000, 2_000, 1_000]


async def test_at_a_rate_only_what_is_due() -> None:
    elapsed_s = 0.0
    found = chunks(Listed(EVENTS), 100.0, lambda: elapsed_s)
    assert len(await anext(found)) == 1, "the first one at once"
    assert len(await anext(found)) == 0
    elapsed_s = 0.1
    assert len(await anext(found)) == 10
    elapsed_s = 1_000.0
    assert len(await anext(found)) == 2_000, "what is late is caught up in bounded chunks"


async def test_what_came_before_a_bad_line_is_given_first() -> None:
    def events() -> Iterator[ProductEvent]:
        yield from EVENTS[:3]
        raise ProductFileError("file:4: bad")

    found = chunks(Listed(events()))
    assert await anext(found) == [OutEvent(*event) for event in EVENTS[:3]]
    with pytest.raises(ProductFileError, match="file:4"):
        await anext(found)


@pytest.mark.parametrize(("limit", "sizes"), [(None, [2_000, 2_000, 1_000]), (0, []), (7, [7])])
async def test_a_limit(limit: int | None, sizes: list[int]) -> None:
    assert [len(chunk) async for chunk in chunks(Limited(Listed(EVENTS), limit))] == sizes


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        PaceConfig(topic="products", rate_per_s=rate)


def test_mean_rate() -> None:
    assert Sent().events_per_s == 0.0
    assert Sent(events=10, seconds=2.0).events_per_s == 5.0
