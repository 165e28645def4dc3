"""`produce` and `watch` on a real Kafka: what is sent arrives, where and when it should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from tests.services import TopicReader, Topics
from worker.errors import BrokerError, ConfigError
from worker.event_sources import Listed
from worker.kafka import KafkaConfig
from worker.local.kafka import LocalKafka
from worker.output_reader import OutputReader, UnreadableOutput
from worker.pacing import Compression, PaceConfig, SentBatch, send_paced
from worker.product_lines import ProductEvent, ProductFileError
from worker.topics_config import TopicsConfig

PARTITIONS = 3


def events(count: int) -> list[ProductEvent]:
    return [
        ProductEvent(b"key-%d" % (number % 7), b'{"n": %d}' % number) for number in range(count)
    ]


def config(kafka: LocalKafka) -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_event_arrives_in_the_order_of_its_key(
    kafka: LocalKafka, topics: Topics, read_all: TopicReader, compression: Compression
) -> None:
    topic = topics(partitions=PARTITIONS)
    sent = events(5_000)
    batches: list[SentBatch] = []
    found = await send_paced(
        config(kafka),
        PaceConfig(topic=topic, compression=compression),
        Listed(sent),
        on_sent=batches.append,
    )
    assert found.events == sum(batch.events for batch in batches) == len(sent)
    records = await read_all(topic, len(sent))
    for key in {event.key for event in sent}:
        assert key is not None
        arrived = [record for record in records if record.key == key]
        assert [record.value for record in arrived] == [e.value for e in sent if e.key == key]
        partition = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        assert {record.partition for record in arrived} == {partition}
    times = {
        (batch.partition, offset): batch.timestamp_ms
        for batch in batches
        for offset in range(batch.first_offset, batch.first_offset + batch.events)
    }
    assert {(r.partition, r.offset): r.timestamp for r in records} == times


async def test_unkeyed_events_take_turns(
    kafka: LocalKafka, topics: Topics, read_all: TopicReader
) -> None:
    topic = topics(partitions=PARTITIONS)
    unkeyed = [ProductEvent(None, event.value) for event in events(300)]
    await send_paced(config(kafka), PaceConfig(topic=topic), Listed(unkeyed))
    records = await read_all(topic, 300)
    assert {record.key for record in records} == {None}
    assert {record.partition for record in records} == set(range(PARTITIONS))


async def test_a_missing_topic_is_an_error_and_is_not_created(
    kafka: LocalKafka, topics: Topics
) -> None:
    topic = topics.name("missing")
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"topic {topic} is missing"):
            await send_paced(config(kafka), PaceConfig(topic=topic), Listed(events(1)))


async def test_no_broker() -> None:
    nowhere = KafkaConfig(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"no broker answers at 127\.0\.0\.1:1"):
        await send_paced(nowhere, PaceConfig(topic="products"), Listed(events(1)))
    with pytest.raises(BrokerError, match=r"no broker answers at 127\.0\.0\.1:1"):
        await OutputReader(nowhere, TopicsConfig()).start()


async def test_cancelled_what_was_taken_still_arrives(
    kafka: LocalKafka, topics: Topics, read_all: TopicReader
) -> None:
    topic = topics()
    taken = asyncio.Event()
    sending = asyncio.create_task(
        send_paced(
            config(kafka),
            PaceConfig(topic=topic, rate_per_s=100.0),
            Listed(events(1_000_000)),
            on_sent=lambda _: taken.set(),
        )
    )
    await taken.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await read_all(topic, 1)


async def test_outputs_are_read_from_the_beginning_or_from_now(
    kafka: LocalKafka, topics: Topics, producer: AIOKafkaProducer
) -> None:
    names = TopicsConfig(
        categories=topics("categories", partitions=2),
        attributes=topics("attributes"),
        dead_letters=topics("dead"),
    )
    await producer.send_and_wait(names.categories, b"old", partition=1)
    async with (
        OutputReader(config(kafka), names) as from_now,
        OutputReader(config(kafka), names, from_beginning=True) as from_beginning,
    ):
        await producer.send_and_wait(names.categories, b"new", partition=1)
        assert await _read(from_now, 1) == [UnreadableOutput(names.categories, 1, 1)]
        assert await _read(from_beginning, 2) == [
            UnreadableOutput(names.categories, 1, 0),
            UnreadableOutput(names.categories, 1, 1),
        ]


async def test_missing_output_topics_are_named(kafka: LocalKafka, topics: Topics) -> None:
    names = TopicsConfig(categories=topics("categories"), attributes=topics("attributes"))
    missing = replace(names, dead_letters=topics.name("dead"))
    with pytest.raises(ConfigError, match=f"topic {missing.dead_letters} is missing"):
        async with OutputReader(config(kafka), missing):
            pass


async def _read(reader: OutputReader, count: int) -> list[object]:
    outputs: list[object] = []
    async with asyncio.timeout(60):
        while len(outputs) < count:
            outputs.extend(await reader.read(0.2))
    return outputs


async def test_what_was_sent_before_a_bad_line_is_counted(
    kafka: LocalKafka, topics: Topics, read_all: TopicReader
) -> None:
    topic = topics(partitions=PARTITIONS)

    def torn() -> Iterator[ProductEvent]:
        yield from events(300)
        raise ProductFileError("file:301: bad")

    told: list[int] = []
    with pytest.raises(ProductFileError, match="file:301"):
        await send_paced(
            config(kafka),
            PaceConfig(topic=topic),
            Listed(torn()),
            on_progress=lambda sent: told.append(sent.events),
        )
    assert told[-1] == 300
    assert len(await read_all(topic, 300)) == 300
