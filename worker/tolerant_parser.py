"""A batch record by record, in plain Python: what is wrong with one is said of it, never raised."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka.record.util import decode_varint_py as decode_varint

__all__ = ["BAD_BATCH", "HEAD_BYTES", "Fault", "parse_batch", "whole_batch"]

BAD_HEADER = "bad_header"
BAD_RECORD = "bad_record"
BAD_BATCH = "bad_batch"

# From base offset to count, as Kafka's message format 2 has them.
_HEAD = struct.Struct(">qiibIhiqqqhii")
HEAD_BYTES = _HEAD.size
_LOG_APPEND_TIME = 0x08


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a record: ``reason`` and ``detail`` of its dead letter."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Record:
    """A record as aiokafka's; ``checksum``, which format 2 has none of, holds its fault."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: Fault | None


class _Head(NamedTuple):
    first_offset: int
    next_offset: int
    is_append_time: bool
    first_ms: int
    max_ms: int
    num_records: int

    @classmethod
    def of(cls, data: bytes) -> _Head:
        first, _, _, _, _, attributes, delta, first_ms, max_ms, _, _, _, count = _HEAD.unpack_from(
            data
        )
        is_append_time = bool(attributes & _LOG_APPEND_TIME)
        return cls(first, first + delta + 1, is_append_time, first_ms, max_ms, count)

    @property
    def is_dense(self) -> bool:
        """Whether no compaction took any record out."""
        return self.num_records == self.next_offset - self.first_offset


def parse_batch(data: bytes, plain: bytes) -> Iterator[_Record]:
    """The records of a batch, those at fault marked, with rising offsets inside the batch.

    From a record on that cannot be taken apart, the rest is one record, as in ``whole_batch``.

    Args:
        data: the batch as it came.
        plain: the same, decompressed.
    """
    head = _Head.of(plain)
    buffer = bytearray(plain)
    position = HEAD_BYTES
    previous = head.first_offset - 1
    for number in range(head.num_records):
        try:
            record, position = _read(head, buffer, position, number)
        except (IndexError, ValueError) as error:
            yield whole_batch(data, f"record {number} cannot be read ({error})")
            return
        if not previous < record.offset < head.next_offset:
            yield whole_batch(data, f"record {number} says that its offset is {record.offset}")
            return
        previous = record.offset
        yield record


def whole_batch(data: bytes, why: str) -> _Record:
    """What cannot be taken apart, as one record at the batch's last offset."""
    head = _Head.of(data)
    last = head.next_offset - 1
    detail = f"offsets {head.first_offset} to {last} are one batch, here as it lies there: {why}"
    return _Record(last, head.max_ms, 0, None, data, [], Fault(BAD_BATCH, detail))


def _read(head: _Head, buffer: bytearray, position: int, number: int) -> tuple[_Record, int]:
    """A record, and where the next one begins: where this one ends, whatever length it says."""
    length, begin = decode_varint(buffer, position)
    _, position = decode_varint(buffer, begin)
    delta_ms, position = decode_varint(buffer, position)
    delta, position = decode_varint(buffer, position)
    key, position = _nullable(buffer, position)
    value, position = _nullable(buffer, position)
    headers, fault, position = _headers(buffer, position)
    offset = head.first_offset + delta
    if head.is_dense and offset != head.first_offset + number:
        fault = Fault(BAD_RECORD, f"the record says that its offset is {offset}")
        offset = head.first_offset + number
    elif position - begin != length:
        size = position - begin
        fault = Fault(BAD_RECORD, f"the record says that it has {length} bytes, but has {size}")
    timestamp = head.max_ms if head.is_append_time else head.first_ms + delta_ms
    kind = int(head.is_append_time)
    return _Record(offset, timestamp, kind, key, value, headers, fault), position


def _headers(
    buffer: bytearray, position: int
) -> tuple[list[tuple[str, bytes | None]], Fault | None, int]:
    headers: list[tuple[str, bytes | None]] = []
    fault = None
    count, position = decode_varint(buffer, position)
    for number in range(count):
        raw, position = _nullable(buffer, position)
        value, position = _nullable(buffer, position)
        if raw is None:
            raise ValueError("a header without a name")
        name = raw.decode(errors="backslashreplace")
        if fault is None and name.encode() != raw:
            fault = Fault(BAD_HEADER, f"the name of header {number} is not UTF-8: {name}")
        headers.append((name, value))
    return headers, fault, position


def _nullable(buffer: bytearray, position: int) -> tuple[bytes | None, int]:
    length, position = decode_varint(buffer, position)
    if length < 0:
        return None, position
    end = position + length
    if end > len(buffer):
        raise ValueError(f"a field of {length} bytes where {len(buffer) - position} are left")
    return bytes(buffer[position:end]), end
