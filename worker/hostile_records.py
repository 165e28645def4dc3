"""Reads what a broker has accepted and no client would write; installed into aiokafka's fetcher.

A broker looks into batches, but not at all of it. Seen with Apache Kafka 4.3: header names that are
not UTF-8, wrong lengths of compressed records, wrong offsets of plain ones, streams that Java's
decompressors take and others do not, kilobytes that decompress to gigabytes. aiokafka raises, at
every read of the partition, and loses by it what the same poll had taken from other partitions; it
believes the wrong offsets; it allocates the gigabytes.

Batches are parsed by aiokafka's compiled parser as ever, after a bounded decompression. Only one
that this refuses, or whose offsets lie, is parsed again here, record by record: those at fault come
out of a poll in their place, marked, and the others are not harmed.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from worker.bounded_codecs import decompress
from worker.tolerant_parser import HEAD_BYTES, Fault, parse_batch, whole_batch

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["Batches", "fault_of", "install"]

_log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">i")
_BODY_AT = 12
_MAGIC_AT = 16
_CODEC_AT = 22
_CODEC_MASK = 0x07

# Sixty times what brokers take of a compressed batch, by default.
_MAX_PLAIN_BYTES = 64 * 1024 * 1024
# Of one partition in one fetch; what comes after is fetched again.
_FETCHED_PLAIN_BYTES = 32 * 1024 * 1024


def fault_of(record: ConsumerRecord[Any, Any]) -> Fault | None:
    """What is wrong with a polled record; None: nothing."""
    # Records of format 2 have no check sum of their own; aiokafka hands the field through.
    fault = record.checksum
    return fault if isinstance(fault, Fault) else None


def install() -> None:
    """Make every aiokafka consumer of this process, Faust's too, read so from now on."""
    fetcher.MemoryRecords = Batches


class Batches:
    """Batches of a fetched partition, as aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes | None) -> None:
        self._data = data or b""
        self._position = 0
        self._room = _FETCHED_PLAIN_BYTES
        self._next = self._end()

    def size_in_bytes(self) -> int:
        """Of all that was fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether there is a whole batch, and room for what it may decompress to."""
        return self._next > self._position and self._room > 0

    def next_batch(self) -> Any:
        """The next batch; of the formats before 2 as aiokafka reads it."""
        data = self._data[self._position : self._next]
        self._position = self._next
        self._next = self._end()
        if len(data) < HEAD_BYTES or data[_MAGIC_AT] < 2:
            return MemoryRecords(data).next_batch()
        return _Batch(data, self)

    def expanded(self, num_bytes: int) -> None:
        """So many bytes came of compressed ones."""
        self._room -= num_bytes

    def _end(self) -> int:
        """Of the batch at the position; the position itself where none is whole."""
        body = self._position + _BODY_AT
        if body > len(self._data):
            return self._position
        (length,) = _LENGTH.unpack_from(self._data, body - _LENGTH.size)
        return body + length if 0 <= length <= len(self._data) - body else self._position


class _Batch:
    """A batch as aiokafka's, whose records never raise."""

    __slots__ = (
        "_batches",
        "_data",
        "_parsed",
        "base_offset",
        "is_control_batch",
        "is_transactional",
        "next_offset",
        "producer_id",
    )

    def __init__(self, data: bytes, batches: Batches) -> None:
        self._data = data
        self._batches = batches
        parsed = self._parsed = DefaultRecordBatch(data)
        self.base_offset: int = parsed.base_offset
        self.next_offset: int = parsed.next_offset
        self.producer_id: int = parsed.producer_id
        self.is_transactional: bool = parsed.is_transactional
        self.is_control_batch: bool = parsed.is_control_batch

    def validate_crc(self) -> bool:
        """Whether the bytes are those that the broker has accepted."""
        if self._parsed.validate_crc():
            return True
        last = self.next_offset - 1  # aiokafka's error names the partition
        _log.error(
            "the check sum of the batch of offsets %d to %d is wrong", self.base_offset, last
        )
        return False

    def __next__(self) -> Any:
        """The record of a control batch, which only brokers write."""
        return next(self._parsed)

    def __iter__(self) -> Iterator[Any]:
        plain, batch = self._data, self._parsed
        if batch.compression_type:
            try:
                plain = self._decompressed(batch.compression_type)
            except ValueError as error:
                return iter([whole_batch(self._data, str(error))])
            batch = DefaultRecordBatch(plain)
        try:
            records = list(batch)
        except Exception:  # noqa: BLE001  whatever a parser raises on what it was not made for
            return parse_batch(self._data, plain)
        offsets = [record.offset for record in records]
        if offsets != [*range(self.base_offset, self.next_offset)] and not self._may_be(offsets):
            return parse_batch(self._data, plain)
        return iter(records)

    def _may_be(self, offsets: list[int]) -> bool:
        """Whether these may be what a compaction has left of the batch's offsets."""
        inside = {each for each in offsets if self.base_offset <= each < self.next_offset}
        return len(offsets) < self.next_offset - self.base_offset and offsets == sorted(inside)

    def _decompressed(self, codec: int) -> bytes:
        """The batch as if it never was compressed.

        Raises:
            ValueError: it cannot be decompressed within bounds.
        """
        try:
            plain = decompress(codec, self._data[HEAD_BYTES:], _MAX_PLAIN_BYTES)
        except ValueError:
            self._batches.expanded(_MAX_PLAIN_BYTES)
            raise
        self._batches.expanded(len(plain))
        head = bytearray(self._data[:HEAD_BYTES])
        head[_CODEC_AT] &= ~_CODEC_MASK
        return bytes(head) + plain
