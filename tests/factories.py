"""Things that many tests need, made in one line."""

from __future__ import annotations

from typing import Any

import orjson
from aiokafka import ConsumerRecord


def record(
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"k",
    topic: str = "products",
    partition: int = 0,
    offset: int = 0,
    timestamp: int = 1_700_000_000_000,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> ConsumerRecord[bytes | None, bytes | None]:
    """An input event as aiokafka gives it."""
    return ConsumerRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=len(key or b""),
        serialized_value_size=len(value or b""),
        headers=headers,
    )


def product_event(**fields: Any) -> bytes:
    """The value of a product event, with what every product needs unless given."""
    return orjson.dumps({"product_id": "p1", "title": "Red dress"} | fields)
