from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiokafka import ConsumerRecord

from worker.corrections import Corrections


@pytest.fixture
def corrections() -> Iterator[Corrections]:
    made = Corrections()
    yield made
    made.close()


def record(offset: int, value: Any, key: bytes | None = None) -> Any:
    if value is not None and not isinstance(value, bytes):
        value = orjson.dumps(value)
    return ConsumerRecord(
        topic="corrections",
        partition=1,
        offset=offset,
        timestamp=1_700_000_000_000 + offset,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


def correction(product_id: str | int, category: str = "boots", **more: Any) -> dict[str, Any]:
    return {"product_id": product_id, "title": "thing", "category": category} | more


def nested(depth: int) -> bytes:
    """A correction with a note of lists in lists, deeper than orjson writes."""
    return (
        b'{"product_id": "p1", "title": "thing", "category": "boots", "note": '
        + b"[" * depth
        + b"]" * depth
        + b"}"
    )


def lines(corrections: Corrections) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in corrections.lines()]


def test_a_correction_is_a_line_with_its_place(corrections: Corrections) -> None:
    corrections.add(record(7, correction("p1", note="seen by Ada"), b"p1"))
    assert lines(corrections) == [
        {
            "product_id": "p1",
            "title": "thing",
            "category": "boots",
            "note": "seen by Ada",
            "correction": {
                "topic": "corrections",
                "partition": 1,
                "offset": 7,
                "timestamp_ms": 1_700_000_000_007,
            },
        }
    ]


def test_the_last_of_a_product_counts(corrections: Corrections) -> None:
    corrections.add(record(0, correction("p1"), b"p1"))
    corrections.add(record(1, correction("p2"), b"p2"))
    corrections.add(record(2, correction("p1", "bags"), b"p1"))
    found = [(line["product_id"], line["category"]) for line in lines(corrections)]
    assert found == [("p2", "boots"), ("p1", "bags")]
    assert (len(corrections), corrections.events, corrections.replaced) == (2, 3, 1)


def test_what_is_taken_back_is_gone(corrections: Corrections) -> None:
    corrections.add(record(0, correction(17), b"17"))
    corrections.add(record(1, None, b"17"))
    corrections.add(record(2, None, b"never seen"))
    assert lines(corrections) == []
    assert corrections.withdrawn == 1


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"{", b"p1", "not JSON"),
        ([], b"p1", "not_an_object"),
        (correction(""), b"", "bad_id"),
        ({"product_id": "p1", "title": "thing"}, b"p1", "category"),
        (correction("p1", attributes=[{"name": "Color"}]), b"p1", "attribute"),
        (correction("p1"), b"p2", "key"),
        (correction("p1"), None, "key"),
        (correction("p1", category=3), b"p1", "category"),
        (correction("p1", attributes={"Color": "red"}), b"p1", "attributes"),
        (nested(300), b"p1", "written again"),
        (b'{"product_id": "\\ud800", "title": "x", "category": "y"}', b"p1", "not JSON"),
        (b'{"product_id": "p1", "title": "x", "category": NaN}', b"p1", "not JSON"),
        (b"[" * 5000, b"p1", "not JSON"),
        (None, None, "neither"),
        (None, b"\xff", "not UTF-8"),
    ],
)
def test_what_is_no_correction_is_told(
    corrections: Corrections, value: Any, key: bytes | None, reason: str
) -> None:
    corrections.add(record(3, value, key))
    assert lines(corrections) == []
    assert corrections.num_refused == 1
    (refused,) = corrections.refused
    assert (refused.partition, refused.offset) == (1, 3)
    assert reason in refused.reason


def test_many_are_counted_and_some_shown(corrections: Corrections) -> None:
    for offset in range(100):
        corrections.add(record(offset, b"x"))
    assert corrections.num_refused == 100
    assert len(corrections.refused) == 20


def test_a_key_that_is_not_utf8_takes_nothing_back(corrections: Corrections) -> None:
    corrections.add(record(0, correction("\ufffd"), "\ufffd".encode()))
    corrections.add(record(1, None, b"\xff"))
    assert len(corrections) == 1
    assert corrections.withdrawn == 0
