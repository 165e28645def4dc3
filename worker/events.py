"""Bytes in, products out; and the dead letter of what is neither.

Sellers' bytes are hostile: whatever they hold, the answer is a product or an ``EventError``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from models.errors import ProductError
from models.product import Product, parse_product
from worker.errors import EventError
from worker.lanes import DeadLetter, Lane
from worker.original_headers import drop, keep
from worker.partitioner import hash_keys

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = [
    "DEAD_LETTER_HEADROOM_BYTES",
    "MAX_KEY_BYTES",
    "Window",
    "bare_dead_letter",
    "cut_dead_letter",
    "dead_letter",
    "event_id",
    "joined",
    "parse_event",
]

# What the dead-letter topic takes beyond the input's largest event, for headers and framing.
DEAD_LETTER_HEADROOM_BYTES = 64 * 1024
# Outputs keep the key: one of a megabyte would make outputs that their topics refuse.
MAX_KEY_BYTES = 4_096
_MAX_DETAIL_BYTES = 1024


@dataclass(slots=True)
class Window:
    """The events of one poll, in offset order within each lane.

    Attributes:
        records: the events.
        lanes: the lane of each.
        slots: the slot of each in its lane.
        polled_s: when the first of them was polled, monotonic seconds.
    """

    records: list[ConsumerRecord[bytes | None, bytes | None]]
    lanes: list[Lane]
    slots: list[int]
    polled_s: float

    def __len__(self) -> int:
        return len(self.records)

    def part(self, rows: Sequence[int]) -> Window:
        """Some of the events, in the order of ``rows``."""
        return Window(
            [self.records[row] for row in rows],
            [self.lanes[row] for row in rows],
            [self.slots[row] for row in rows],
            self.polled_s,
        )


def joined(windows: Sequence[Window]) -> Window:
    """The events of several windows of one poll, in their order."""
    return Window(
        [record for window in windows for record in window.records],
        [lane for window in windows for lane in window.lanes],
        [slot for window in windows for slot in window.slots],
        windows[0].polled_s,
    )


def event_id(kind: str, topic: str, partition: int, offset: int) -> str:
    """Name of an output event: the same after every redelivery, so that readers can deduplicate."""
    return f"{kind}:{topic}:{partition}:{offset}"


def parse_event(value: bytes | None) -> Product:
    """The product in an event's value.

    Raises:
        EventError: ``tombstone``, ``invalid_utf8``, ``invalid_json`` or a reason of
            ``models.product.parse_product``.
    """
    if value is None:
        raise EventError("tombstone", "the value is null: there is no product to categorize")
    try:
        return parse_product(orjson.loads(value))
    except orjson.JSONDecodeError as error:
        raise _undecodable(value, error) from None
    except ProductError as error:
        raise EventError(error.reason, error.detail) from None


def _undecodable(value: bytes, error: orjson.JSONDecodeError) -> EventError:
    try:
        value.decode()
    except UnicodeDecodeError as utf8_error:
        return EventError(
            "invalid_utf8", f"byte {utf8_error.start} is not UTF-8 ({utf8_error.reason})"
        )
    return EventError("invalid_json", f"{error.msg} at character {error.pos}")


def dead_letter(
    record: ConsumerRecord[bytes | None, bytes | None],
    reason: str,
    detail: str,
    release: str,
) -> DeadLetter:
    """The dead letter of an event: its key and value as they were, the reason in the headers.

    The event's own headers come after ours, their names prefixed.
    """
    identity = event_id("dead-letter", record.topic, record.partition, record.offset)
    headers: list[tuple[str, bytes | None]] = [
        ("reason", reason.encode()),
        ("detail", _shortened(detail)),
        ("event-id", identity.encode()),
        ("input-topic", record.topic.encode()),
        ("input-partition", b"%d" % record.partition),
        ("input-offset", b"%d" % record.offset),
        ("input-timestamp", b"%d" % record.timestamp),
        ("release", release.encode()),
        ("schema", b"sortiment.dead-letter.v1"),
    ]
    if record.value is None:
        headers.append(("tombstone", b"true"))
    headers += keep(record.headers)
    key_hash = hash_keys([record.key if record.key is not None else identity.encode()])[0]
    return DeadLetter(record, record.key, record.value, key_hash, reason, headers)


def _shortened(detail: str) -> bytes:
    cut = detail.encode("utf-8", "backslashreplace")[:_MAX_DETAIL_BYTES]
    return cut.decode(errors="ignore").encode()  # without the half of a character at the end


def bare_dead_letter(letter: DeadLetter) -> DeadLetter | None:
    """A dead letter without its event's headers; None where it has none of them."""
    headers = drop(letter.headers)
    return None if headers is None else replace(letter, headers=headers)


def cut_dead_letter(letter: DeadLetter, max_bytes: int) -> DeadLetter:
    """A dead letter that the broker refused for its size, cut to ``max_bytes`` of key and value.

    Headers then hold the length and SHA-256 of what was cut; the input offset says where the whole
    event lies for as long as its topic keeps it.
    """
    record = letter.record
    key, key_headers = _cut("key", record.key, max_bytes // 4)
    value, value_headers = _cut("value", record.value, max_bytes - len(key or b""))
    # A letter that was cut before is cut anew from the event itself.
    headers = [header for header in letter.headers if not header[0].startswith(("key-", "value-"))]
    return DeadLetter(
        record,
        key,
        value,
        letter.key_hash,
        letter.reason,
        [*headers, *key_headers, *value_headers],
    )


def _cut(
    name: str, data: bytes | None, max_bytes: int
) -> tuple[bytes | None, Sequence[tuple[str, bytes]]]:
    if data is None or len(data) <= max_bytes:
        return data, ()
    return data[:max_bytes], (
        (f"{name}-cut-to", b"%d" % max_bytes),
        (f"{name}-length", b"%d" % len(data)),
        (f"{name}-sha256", hashlib.sha256(data).hexdigest().encode()),
    )
