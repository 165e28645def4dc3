"""What the commands that send have in common."""

from __future__ import annotations

import click
import pytest

from worker.event_sources import Listed
from worker.product_lines import ProductEvent
from worker.sending_commands import RFC3339, count_by_partition


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:00.25+01:00", 250),
        ("2026-10-01T00:00:00Z", 1_790_812_800_000),
    ],
)
def test_a_time_with_its_zone(given: str, milliseconds: int) -> None:
    assert RFC3339.convert(given, None, None) == milliseconds


@pytest.mark.parametrize("given", ["", "now", "2026-10-01", "2026-10-01T00:00:00", "1759276800"])
def test_anything_else_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(click.BadParameter, match="2026-10-01T00:00:00Z"):
        RFC3339.convert(given, None, None)


async def test_what_would_be_sent_is_counted_by_partition() -> None:
    keyed = [ProductEvent(b"same", b"{}")] * 5
    unkeyed = [ProductEvent(None, b"{}")] * 300
    assert sorted((await count_by_partition(Listed(keyed), 3)).values()) == [5]
    counts = await count_by_partition(Listed(unkeyed), 3)
    assert len(counts) == 3
    assert counts.total() == 300
