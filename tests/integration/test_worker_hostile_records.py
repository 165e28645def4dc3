"""Records that no client would write, each a dead letter: the stream goes on, nothing is lost."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.codec import gzip_encode, zstd_encode

from tests.catalog import product, products, seller_key
from tests.hostile_batches import RawBatch, RawRecord, send_raw
from tests.hot_path_runs import HotPathRun, load_serving
from tests.ledger import Ledger
from tests.streams import Group, Inputs, Place, make_topic
from worker.original_headers import ORIGINAL

PARTITIONS = 4
PER_ROUND = 200
BAD_NAME = RawRecord(b"k", b"{}", [(b"trace", b"1"), (b"\xff\xfe", b"2")])
MEGABYTE = 1024 * 1024


@pytest.fixture
def settings(settings: dict[str, object], delivery: str) -> dict[str, object]:
    """Every test in both kinds of delivery."""
    return settings | {"delivery": delivery}


def good(number: int) -> RawRecord:
    return RawRecord(seller_key(number), product(number))


def as_stored(batch: RawBatch, offset: int) -> bytes:
    """A batch with what a broker writes into its head: its offset and the leader's epoch."""
    data = batch.encoded()
    return struct.pack(">q", offset) + data[8:12] + struct.pack(">i", 0) + data[16:]


async def send_hostile(
    producer: AIOKafkaProducer, inputs: Inputs, number: int, partition: int
) -> dict[Place, str]:
    """Write one batch of each kind; the reasons of those that must be dead letters."""
    lies = RawRecord(b"k", b"{}", size_lie=1)
    strays = RawRecord(b"k", b"{}", offset_delta=1_000)
    dead: dict[Place, str] = {}
    for bad, reason in ((BAD_NAME, "bad_header"), (strays, "bad_record"), (lies, "bad_record")):
        records = [good(number), bad, good(number + 1), bad]
        batch = RawBatch(records)
        if bad is not strays:  # brokers mend the offsets of compressed ones only
            batch = batch.compressed(1, gzip_encode(batch.plain))
        first = await send_raw(producer, inputs.topic, partition, batch.encoded())
        for delta, record in enumerate(records):
            inputs.events[partition, first + delta] = (record.key, record.value)
            if record is bad:
                dead[partition, first + delta] = reason
        number += 2
    plain = RawBatch([good(number), good(number)])
    bomb = RawBatch([RawRecord(b"k", bytes(65 * MEGABYTE))])
    for batch in (
        plain.compressed(1, gzip_encode(plain.plain) + b"junk"),
        bomb.compressed(4, zstd_encode(bomb.plain)),
    ):
        first = await send_raw(producer, inputs.topic, partition, batch.encoded())
        place = (partition, first + len(batch.records) - 1)
        inputs.events[place] = (None, as_stored(batch, first))
        dead[place] = "bad_batch"
    return dead


async def test_hostile_records_among_products(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    producer: AIOKafkaProducer,
    group: Group,
    ledger: Ledger,
) -> None:
    make_topic(str(settings["bootstrap_servers"]), inputs.topic, partitions=PARTITIONS)
    dead: dict[Place, str] = {}

    async def send_round(start: int) -> None:
        await inputs.send(products(PER_ROUND, start=start))
        for partition in (0, 1):
            dead.update(await send_hostile(producer, inputs, start + PER_ROUND, partition))
        await inputs.send(products(PER_ROUND, start=start + PER_ROUND + 20))

    # Some wait when the worker starts, some come while it runs, some after it was there before.
    await send_round(0)
    serving = load_serving(noop)
    async with HotPathRun(settings, serving):
        await send_round(1_000)
        await group.caught_up()
    async with HotPathRun(settings, serving):
        await send_round(2_000)
        await group.caught_up()

    outputs = await ledger.read()
    assert not ledger.check(outputs, dead=dead).places
    letters = [dict(letter.headers) for letter in outputs.dead_letters]
    bad_names = [letter for letter in letters if letter["reason"] == b"bad_header"]
    assert len(bad_names) == 12
    for letter in bad_names:
        assert letter[ORIGINAL + "trace"] == b"1"
        assert letter[ORIGINAL + "\\xff\\xfe"] == b"2"
        assert letter["detail"] == rb"the name of header 1 is not UTF-8: \xff\xfe"
