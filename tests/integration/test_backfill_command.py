"""`backfill` against a real Kafka: from files, from a time of the input topic, and interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from tests.catalog import product
from tests.commands import command, ended, start_command
from tests.hostile_batches import RawBatch, RawRecord, send_raw
from tests.services import TopicReader, Topics

# 2026-01-01T00:00:00Z and hours after it.
START_MS = 1_767_225_600_000
HOUR_MS = 3_600_000


@pytest.fixture
def past(topics: Topics) -> str:
    return topics("past", partitions=3)


@pytest.fixture
def settings(settings: dict[str, object], topics: Topics, past: str) -> dict[str, object]:
    return settings | {"backfill_topic": past, "input_topic": topics("in", partitions=2)}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "products.jsonl"
    path.write_bytes(b"".join(product(number) + b"\n" for number in range(100)))
    return path


async def test_products_of_files(
    settings: dict[str, object], past: str, lines: Path, tmp_path: Path, read_all: TopicReader
) -> None:
    said = await command(settings, tmp_path, "backfill", str(lines), "--limit", "60")
    assert said.code == 0, said.err
    assert "60 events sent" in said.err
    records = await read_all(past, 60)
    assert {orjson.loads(record.value or b"")["product_id"] for record in records} == {
        f"p{number}" for number in range(60)
    }


async def test_a_dry_run_counts_and_sends_nothing(
    settings: dict[str, object], past: str, lines: Path, tmp_path: Path, read_all: TopicReader
) -> None:
    said = await command(settings, tmp_path, "backfill", str(lines), "--dry-run")
    assert said.code == 0, said.err
    counts = [int(line.split(": ")[1]) for line in said.out.splitlines()[:3]]
    assert sum(counts) == 100
    assert all(counts)
    assert "100 events; nothing was sent" in said.out
    assert await read_all(past) == []


async def test_a_time_of_the_input_topic_is_copied_with_keys_and_headers(
    settings: dict[str, object],
    past: str,
    producer: AIOKafkaProducer,
    tmp_path: Path,
    read_all: TopicReader,
) -> None:
    topic = str(settings["input_topic"])
    # Not in the order of their times.
    for hour in (0, 1, 5, 2, 3, 6):
        for partition in (0, 1):
            await producer.send_and_wait(
                topic,
                None if hour == 3 else product(hour),
                key=b"k%d" % partition,
                headers=[("hour", b"%d" % hour), ("null", None)],
                timestamp_ms=START_MS + hour * HOUR_MS,
                partition=partition,
            )
    since, until = "2026-01-01T01:00:00Z", "2026-01-01T06:00:00+01:00"
    said = await command(settings, tmp_path, "backfill", "--since", since, "--until", until)
    assert said.code == 0, said.err
    records = await read_all(past, 6)
    hours = [int(dict(record.headers)["hour"]) for record in records]
    assert sorted(hours) == [1, 1, 2, 2, 3, 3]
    for record, hour in zip(records, hours, strict=True):
        assert record.headers == (("hour", b"%d" % hour), ("null", None))
        assert record.value == (None if hour == 3 else product(hour))
        assert record.timestamp > START_MS + 24 * HOUR_MS
    for key in (b"k0", b"k1"):
        of_key = [hour for record, hour in zip(records, hours, strict=True) if record.key == key]
        assert of_key == [1, 2, 3]


async def test_records_that_no_client_writes_are_left_out_and_counted(
    settings: dict[str, object],
    past: str,
    producer: AIOKafkaProducer,
    tmp_path: Path,
    read_all: TopicReader,
) -> None:
    hostile = RawRecord(b"k", b"{}", [(b"\xff", b"v")])
    sound = RawRecord(b"k", product(1))
    batch = RawBatch([hostile, sound, hostile])
    await send_raw(producer, str(settings["input_topic"]), 0, batch.encoded())
    said = await command(settings, tmp_path, "backfill", "--since", "2020-01-01T00:00:00Z")
    assert said.code == 0, said.err
    assert "2 events left out" in said.err
    assert [record.value for record in await read_all(past, 1)] == [product(1)]


async def test_interrupted_it_says_how_many_were_sent(
    settings: dict[str, object], past: str, lines: Path, tmp_path: Path, read_all: TopicReader
) -> None:
    process = await start_command(
        settings, tmp_path, "backfill", *[str(lines)] * 1_000, "--rate", "200"
    )
    await read_all(past, 20)
    process.send_signal(signal.SIGINT)
    said = await ended(process)
    assert said.code == 130
    number = int(said.err.split("interrupted: ")[1].split(" ")[0].replace(",", ""))
    assert number == len(await read_all(past))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backfill"], "give files, or --since"),
        (["backfill", "products.jsonl", "--since", "2026-01-01T00:00:00Z"], "give files, or"),
        (["backfill", "--since", "yesterday"], "RFC 3339"),
    ],
)
async def test_wrong_usage(
    settings: dict[str, object], lines: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    said = await command(settings, tmp_path, *arguments)
    assert said.code == 2
    assert says in said.err


async def test_without_a_backfill_topic_or_with_one_that_is_missing_it_refuses(
    settings: dict[str, object], topics: Topics, lines: Path, tmp_path: Path
) -> None:
    unset = {name: value for name, value in settings.items() if name != "backfill_topic"}
    said = await command(unset, tmp_path, "backfill", str(lines))
    assert said.code == 2
    assert "SORTIMENT_BACKFILL_TOPIC (--topic): no backfill topic is set" in said.err

    missing = topics.name("missing")
    for more in ([], ["--dry-run"]):
        said = await command(settings | {"backfill_topic": missing}, tmp_path, "backfill",
                             str(lines), *more)  # fmt: skip
        assert said.code == 2
        assert f"topic {missing} is missing" in said.err
