"""Record batches that no client would make, written by hand and sent as they are."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

__all__ = ["RawBatch", "RawRecord", "send_raw", "varint"]

_TIMEOUT_MS = 10_000
# Attributes to producer id, epoch, sequence and count: what the check sum covers comes first.
_CHECKED = struct.Struct(">hiqqqhii")


def varint(value: int) -> bytes:
    """A zigzag varint, as the record format has its lengths."""
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


def _field(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


@dataclass(frozen=True)
class RawRecord:
    """A record; what is not given is as a client would write it.

    Attributes:
        headers: names as bytes.
        num_headers: what the record says there are.
        offset_delta: None: its number in the batch.
        size_lie: added to the length that the record says it has.
        tail: bytes after the last header.
    """

    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    num_headers: int | None = None
    offset_delta: int | None = None
    timestamp_delta: int = 0
    size_lie: int = 0
    tail: bytes = b""

    def encoded(self, number: int) -> bytes:
        """Its bytes as the record of this number in a batch."""
        count = len(self.headers) if self.num_headers is None else self.num_headers
        body = b"".join(
            [
                b"\x00",
                varint(self.timestamp_delta),
                varint(number if self.offset_delta is None else self.offset_delta),
                _field(self.key),
                _field(self.value),
                varint(count),
                *(_field(name) + _field(value) for name, value in self.headers),
                self.tail,
            ]
        )
        return varint(len(body) + self.size_lie) + body


@dataclass(frozen=True)
class RawBatch:
    """A batch; what is not given is as a client would write it.

    Attributes:
        records: its records.
        payload: instead of the records' bytes, say their compressed ones.
        codec: number of the compression.
        attributes: other bits of the attributes.
        count, last_offset_delta: what the batch says.
        crc_lie: xor-ed into the check sum.
        base_offset: as a broker sets it.
        producer: its id, epoch and first sequence number.
    """

    records: Sequence[RawRecord] = ()
    payload: bytes | None = None
    codec: int = 0
    attributes: int = 0
    magic: int = 2
    count: int | None = None
    last_offset_delta: int | None = None
    crc_lie: int = 0
    base_offset: int = 0
    producer: tuple[int, int, int] = (-1, -1, -1)
    timestamp_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    @property
    def plain(self) -> bytes:
        """The records' bytes, not compressed."""
        return b"".join(record.encoded(number) for number, record in enumerate(self.records))

    def compressed(self, codec: int, payload: bytes) -> RawBatch:
        """The same records behind another payload."""
        return replace(self, codec=codec, payload=payload)

    def encoded(self) -> bytes:
        """Its bytes, with a check sum that is right unless told otherwise."""
        count = len(self.records) if self.count is None else self.count
        last = count - 1 if self.last_offset_delta is None else self.last_offset_delta
        now_ms = self.timestamp_ms
        checked = _CHECKED.pack(
            self.codec | self.attributes, last, now_ms, now_ms, *self.producer, count
        ) + (self.plain if self.payload is None else self.payload)
        crc = calc_crc32c(checked) ^ self.crc_lie
        rest = struct.pack(">ibI", -1, self.magic, crc) + checked
        return struct.pack(">qi", self.base_offset, len(rest)) + rest


async def send_raw(producer: AIOKafkaProducer, topic: str, partition: int, batch: bytes) -> int:
    """Write a batch, or whatever it is, as it is; returns the offset that it got.

    Raises:
        KafkaError: the broker has refused it.
        TimeoutError: the partition has no leader.
    """
    await producer.partitions_for(topic)
    client = producer.client
    request = ProduceRequest(None, -1, _TIMEOUT_MS, [(topic, [(partition, batch)])])
    async with asyncio.timeout(_TIMEOUT_MS / 1000):
        while True:
            leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
            answer = await client.send(leader, request)
            (_, ((_, code, offset, *_),)), *_ = answer.topics
            if not for_code(code).invalid_metadata:
                break
            # A new topic's leader may not know yet that it leads: clients ask again who does.
            await client.force_metadata_update()
    if code:
        raise for_code(code)()
    written: int = offset
    return written
