"""Events at the size limit, and what topics refuse for its size: split, cut, never lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from tests.catalog import Event, product, products
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger, headers_of
from tests.services import Record, TopicReader, WorkerTopics
from tests.streams import Group, Inputs, Place, alter_topic, make_topic
from worker.local.kafka import LocalKafka

LIMIT = 1_048_576
PROBE = b"probe"


@pytest.fixture
def settings(settings: dict[str, object], delivery: str) -> dict[str, object]:
    """Few partitions: many outputs in each batch. Every test in both kinds of delivery."""
    return settings | {"partitions": 2, "delivery": delivery}


async def send_largest(inputs: Inputs, key: bytes | None, value: Callable[[int], bytes]) -> Place:
    """Write the largest event that the topic takes; ``value`` makes one of a given length."""
    # The batch's header takes 61 bytes and the record's fields, varints, some 10 to 20.
    for length in range(LIMIT - 61 - len(key or b""), LIMIT - 200 - len(key or b""), -1):
        try:
            (place,) = await inputs.send([(key, value(length))])
        except MessageSizeTooLargeError:
            continue
        return place
    raise AssertionError(f"{inputs.topic} takes no event near {LIMIT} bytes")


async def until_refused(producer: AIOKafkaProducer, topic: str, num_bytes: int) -> None:
    """Until the broker goes by a topic's new limit; what it takes before has the key PROBE."""
    for _ in range(1_000):
        try:
            await producer.send_and_wait(topic, b"\0" * num_bytes, key=PROBE)
        except MessageSizeTooLargeError:
            return
    raise AssertionError(f"{topic} goes on taking {num_bytes} bytes")


async def test_events_at_the_limit_get_results_or_whole_dead_letters(
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
) -> None:
    async with HotPathRun(settings, load_serving(noop)):
        # Made by the worker just now: with the limit that the settings say.
        frame = len(product(1, description=""))
        await send_largest(
            inputs, b"big", lambda size: product(1, description="x" * (size - frame))
        )
        bad = await send_largest(inputs, b"bad", lambda size: b"{" * size)
        keyless = await send_largest(inputs, None, lambda size: b"\xff" * size)
        await inputs.send(products(100))
        await group.caught_up()

    dead = {bad: "invalid_json", keyless: "invalid_utf8"}
    outputs = await ledger.read()
    assert not ledger.check(outputs, dead=dead, partitions=2).places
    assert all("value-cut-to" not in headers_of(letter) for letter in outputs.dead_letters)


async def test_a_dead_letter_that_is_still_refused_is_cut_and_says_so(
    kafka: LocalKafka,
    settings: dict[str, object],
    producer: AIOKafkaProducer,
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    worker_topics: WorkerTopics,
) -> None:
    large = b"{" + b"".join(b"%d," % number for number in range(10_000))
    async with HotPathRun(settings | {"compression": "none"}, load_serving(noop)) as run:
        dead_letters = worker_topics.dead_letters_topic
        alter_topic(kafka.bootstrap_servers, dead_letters, {"max.message.bytes": "4000"})
        await until_refused(producer, dead_letters, 5_000)
        small = [(b"small-%d" % number, b"{%d" % number) for number in range(40)]
        places = await inputs.send([*small[:20], (b"large", large), *small[20:]])
        large_key = b"k" * 20_000
        await inputs.send([(large_key, product(1))])
        await group.caught_up()

    letters = [each for each in (await ledger.read()).dead_letters if each.key != PROBE]
    assert len(letters) == len(inputs)
    by_key = {letter.key: letter for letter in letters}
    assert all(by_key[key].value == value for key, value in small)
    cut = by_key[b"large"]
    headers = headers_of(cut)
    assert large.startswith(cut.value)
    assert len(cut.value) == int(headers["value-cut-to"]) > 500
    assert int(headers["value-length"]) == len(large)
    assert headers["value-sha256"] == hashlib.sha256(large).hexdigest()
    assert (int(headers["input-partition"]), int(headers["input-offset"])) == places[20]
    assert headers["reason"] == "invalid_json"
    (other,) = [letter for letter in letters if letter.key not in {*dict(small), b"large"}]
    assert large_key.startswith(other.key)
    assert headers_of(other)["key-sha256"] == hashlib.sha256(large_key).hexdigest()
    assert headers_of(other)["reason"] == "key_too_long"
    assert product(1).startswith(other.value)
    assert sample(run.metrics, "delivery_recoveries_total") >= 1


async def test_a_batch_of_outputs_that_is_refused_is_split(
    kafka: LocalKafka,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    worker_topics: WorkerTopics,
) -> None:
    # As somebody might have made it by hand: room for two or three categories events.
    limit = {"max.message.bytes": "2500"}
    make_topic(kafka.bootstrap_servers, worker_topics.categories_topic, 2, limit)
    make_topic(kafka.bootstrap_servers, inputs.topic, 2)
    await inputs.send(products(60))

    async with HotPathRun(settings | {"compression": "none"}, load_serving(noop)) as run:
        await group.caught_up()

    repeats = await ledger.audit(partitions=2)
    if settings["delivery"] == "exactly_once":
        assert not repeats.places
    assert sample(run.metrics, "delivery_recoveries_total") >= 1


async def test_an_output_that_is_refused_by_itself_becomes_a_dead_letter(
    kafka: LocalKafka,
    settings: dict[str, object],
    noop: Path,
    inputs: Inputs,
    group: Group,
    read_all: TopicReader,
    worker_topics: WorkerTopics,
) -> None:
    limit = {"max.message.bytes": "3000"}
    make_topic(kafka.bootstrap_servers, worker_topics.categories_topic, 2, limit)
    make_topic(kafka.bootstrap_servers, inputs.topic, 2)
    long_key = b"k" * 4_000  # within what is allowed, and too long for that topic
    events: list[Event] = [*products(10), (long_key, product(10)), *products(10, start=11)]
    places = await inputs.send(events)

    async with HotPathRun(settings | {"compression": "none"}, load_serving(noop)):
        await group.caught_up()

    def offset_of(value: bytes | None) -> Place:
        origin = orjson.loads(value or b"")["input"]
        return origin["partition"], origin["offset"]

    async def read(topic: str) -> Sequence[Record]:
        return await read_all(topic, read_committed=True)

    categories = {offset_of(r.value) for r in await read(worker_topics.categories_topic)}
    attributes = {offset_of(r.value) for r in await read(worker_topics.attributes_topic)}
    assert categories == set(places) - {places[10]}
    assert attributes == set(places)
    (letter,) = await read(worker_topics.dead_letters_topic)
    headers = headers_of(letter)
    assert (letter.key, letter.value) == events[10]
    assert headers["reason"] == "output_too_large"
    assert worker_topics.categories_topic in headers["detail"]
