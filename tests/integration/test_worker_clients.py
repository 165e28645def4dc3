"""Inputs of other clients, in every compression, and outputs in every compression."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Message, Producer

from tests.catalog import Event, products
from tests.hot_path_runs import HotPathRun, load_serving
from tests.ledger import Ledger
from tests.streams import Group, Inputs, Place
from worker.local.kafka import LocalKafka

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PER_CLIENT = 300


def send_with_librdkafka(
    bootstrap_servers: str, topic: str, events: Sequence[Event], codec: str
) -> dict[Place, Event]:
    """Write events with the client that most others stand on; returns where each lies."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "compression.type": codec, "linger.ms": 50}
    )
    sent: dict[Place, Event] = {}

    def deliver(event: Event) -> Callable[[object, Message], None]:
        def acknowledged(error: object, message: Message) -> None:
            assert error is None
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            sent[partition, offset] = event

        return acknowledged

    for key, value in events:
        producer.produce(topic, value=value, key=key, on_delivery=deliver((key, value)))
    assert producer.flush(60) == 0
    return sent


async def test_every_codec_of_two_clients_is_read(
    kafka: LocalKafka,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    # No other client sends an event without key and value.
    nothing: Event = (None, None)
    async with HotPathRun(settings, load_serving(noop)):
        for codec in CODECS:
            compressed = AIOKafkaProducer(
                bootstrap_servers=kafka.bootstrap_servers,
                compression_type=None if codec == "none" else codec,
                linger_ms=50,
            )
            async with compressed:
                aiokafkas = Inputs(compressed, inputs.topic, inputs.events)
                await aiokafkas.send(products(PER_CLIENT, start=len(inputs)))
            events = [*products(PER_CLIENT, start=len(inputs)), nothing]
            inputs.events |= await asyncio.to_thread(
                send_with_librdkafka, kafka.bootstrap_servers, inputs.topic, events, codec
            )
        await group.caught_up()

    dead = {place: "tombstone" for place, event in inputs.events.items() if event == nothing}
    assert len(inputs) == len(CODECS) * (2 * PER_CLIENT + 1)
    assert len(dead) == len(CODECS)
    assert not (await ledger.audit(dead=dead)).places


@pytest.mark.parametrize("codec", CODECS)
async def test_outputs_are_written_in_every_codec(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    codec: str,
) -> None:
    async with HotPathRun(settings | {"compression": codec}, load_serving(noop)):
        await inputs.send(products(300))
        (bad,) = await inputs.send([(b"bad", b"{")])
        await group.caught_up()

    assert not (await ledger.audit(dead={bad: "invalid_json"})).places
