"""What a poll gives of batches that no client writes: aiokafka's own fetcher over our batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from tests.hostile_batches import RawBatch, RawRecord
from worker.hostile_records import Batches, fault_of
from worker.kafka import KafkaConfig

TRANSACTIONAL = 0x10
READ_COMMITTED = 1
SOUND = RawRecord(b"k", b"sound", [("ä".encode(), None)])
BAD_NAME = RawRecord(b"k", b"v", [(b"good", b"1"), (b"\xff-n", b"2"), (b"\xfe", None)])
MEGABYTE = 1024 * 1024


class Fetched:
    """A fetched partition, read to its end as a consumer of committed events does."""

    def __init__(
        self, *batches: RawBatch, start: int = 0, aborted: Sequence[tuple[int, int]] = ()
    ) -> None:
        data = b"".join(batch.encoded() for batch in batches)
        partition = TopicPartition("in", 0)
        self._records = fetcher.PartitionRecords(
            partition, Batches(data), list(aborted), start, None, None, True, READ_COMMITTED
        )
        self.records: list[Any] = list(self._records)

    @property
    def next_offset(self) -> int:
        return int(self._records.next_fetch_offset)

    @property
    def reasons(self) -> list[tuple[int, str | None]]:
        """Of each record: offset, and reason of its fault."""
        return [
            (record.offset, None if (fault := fault_of(record)) is None else fault.reason)
            for record in self.records
        ]


def compressed(codec: int, *records: RawRecord, junk: bytes = b"") -> RawBatch:
    encode = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}[codec]
    batch = RawBatch(records)
    return batch.compressed(codec, encode(batch.plain) + junk)


def at(offset: int, batch: RawBatch) -> RawBatch:
    return replace(batch, base_offset=offset)


def test_consumers_read_so_once_a_config_is_known() -> None:
    KafkaConfig(bootstrap_servers="localhost:9092")
    assert fetcher.MemoryRecords is Batches


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_header_name_that_is_not_utf8(codec: int) -> None:
    records = (SOUND, BAD_NAME, SOUND)
    batch = compressed(codec, *records) if codec else RawBatch(records)
    fetched = Fetched(at(7, batch), at(10, RawBatch([SOUND])), start=7)
    assert fetched.reasons == [(7, None), (8, "bad_header"), (9, None), (10, None)]
    bad = fetched.records[1]
    assert (bad.key, bad.value) == (b"k", b"v")
    assert bad.headers == (("good", b"1"), ("\\xff-n", b"2"), ("\\xfe", None))
    assert (bad.serialized_key_size, bad.serialized_value_size) == (1, 1)
    assert fetched.records[2].headers == (("ä", None),)
    assert fetched.records[2].timestamp == bad.timestamp
    fault = fault_of(bad)
    assert fault is not None
    assert fault.detail == "the name of header 1 is not UTF-8: \\xff-n"


@pytest.mark.parametrize("lie", [-3, 1, 10_000_000])
def test_a_record_that_lies_about_its_length(lie: int) -> None:
    fetched = Fetched(compressed(1, SOUND, RawRecord(b"k", b"v", size_lie=lie), SOUND))
    assert fetched.reasons == [(0, None), (1, "bad_record"), (2, None)]
    assert fetched.records[1].value == b"v"


@pytest.mark.parametrize("delta", [-9, 0, 2, 1000, 2**31 - 1])
def test_a_record_that_lies_about_its_offset_is_where_it_is(delta: int) -> None:
    batch = RawBatch([SOUND, RawRecord(b"k", b"v", offset_delta=delta), SOUND])
    fetched = Fetched(at(5, batch), at(8, RawBatch([SOUND])), start=5)
    assert fetched.reasons == [(5, None), (6, "bad_record"), (7, None), (8, None)]
    assert fetched.next_offset == 9


@pytest.mark.parametrize(
    "batch",
    [
        compressed(1, SOUND, SOUND, junk=b"junk"),
        compressed(2, SOUND, SOUND, junk=b"\0\0"),
        compressed(3, SOUND, SOUND, junk=b"junk"),
        RawBatch([SOUND, SOUND]).compressed(4, b"junk"),
        RawBatch([SOUND, SOUND]).compressed(7, b"junk"),
    ],
)
def test_a_batch_that_cannot_be_decompressed_is_one_event_whole(batch: RawBatch) -> None:
    fetched = Fetched(RawBatch([SOUND]), at(1, batch), at(3, RawBatch([SOUND])))
    # It has cost what a bomb costs: the next ones are fetched again.
    assert fetched.reasons == [(0, None), (2, "bad_batch")]
    assert fetched.next_offset == 3
    assert fetched.records[1].value == at(1, batch).encoded()


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_a_bomb_is_not_unpacked(codec: int) -> None:
    bomb = compressed(codec, RawRecord(b"k", bytes(65 * MEGABYTE)))
    fetched = Fetched(bomb)
    assert fetched.reasons == [(0, "bad_batch")]
    assert fetched.records[0].value == bomb.encoded()
    fault = fault_of(fetched.records[0])
    assert fault is not None
    assert "more than 67108864 bytes" in fault.detail


def test_no_fetch_unpacks_more_than_one_batch_beyond_its_room() -> None:
    large = compressed(4, RawRecord(b"k", bytes(20 * MEGABYTE)))
    batches = [at(offset, large) for offset in range(4)]
    first = Fetched(*batches)
    assert first.reasons == [(0, None), (1, None)]
    assert first.next_offset == 2
    assert Fetched(*batches[2:], start=2).reasons == [(2, None), (3, None)]


def test_what_no_parser_can_take_apart_ends_as_one_event() -> None:
    batch = replace(RawBatch([SOUND, BAD_NAME, SOUND]), payload=RawBatch([SOUND]).plain + b"\xff")
    fetched = Fetched(batch, at(3, RawBatch([SOUND])))
    assert fetched.reasons == [(0, None), (2, "bad_batch"), (3, None)]


def test_aborted_events_do_not_come_back() -> None:
    aborted = RawBatch([BAD_NAME, SOUND], attributes=TRANSACTIONAL, producer=(9, 0, 0))
    fetched = Fetched(aborted, at(2, RawBatch([BAD_NAME])), aborted=[(9, 0)])
    assert fetched.reasons == [(2, "bad_header")]


def test_a_read_may_begin_within_a_batch() -> None:
    assert Fetched(RawBatch([SOUND, BAD_NAME, SOUND]), start=1).reasons == [
        (1, "bad_header"),
        (2, None),
    ]


@pytest.mark.parametrize("kept", [SOUND, BAD_NAME])
def test_what_a_compaction_has_left(kept: RawRecord) -> None:
    records = [replace(kept, offset_delta=delta) for delta in (1, 4)]
    fetched = Fetched(RawBatch(records, last_offset_delta=6), at(7, RawBatch([])))
    reason = None if kept is SOUND else "bad_header"
    assert fetched.reasons == [(1, reason), (4, reason)]
    assert fetched.next_offset == 7


def test_a_wrong_check_sum_ends_the_reading(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CorruptRecordException, match="topic='in', partition=0"):
        Fetched(at(4, RawBatch([SOUND, SOUND], crc_lie=1)), start=4)
    assert "offsets 4 to 5" in caplog.text


def test_half_a_batch_at_the_end_is_left() -> None:
    data = RawBatch([SOUND]).encoded()
    batches = Batches(data + data[:-1])
    assert batches.size_in_bytes() == 2 * len(data) - 1
    assert batches.has_next()
    assert [record.offset for record in batches.next_batch()] == [0]
    assert not batches.has_next()
    assert not Batches(b"").has_next()
