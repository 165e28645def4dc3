"""Dead letters of a bad release, sent back under a good one, on a real Kafka."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from models.noop import noop_release
from models.taxonomy import Taxonomy
from tests.brittle import POISON, BrittleEncoder, brittle
from tests.catalog import product, seller_key
from tests.commands import command
from tests.hot_path_runs import HotPathRun, load_serving
from tests.ledger import Ledger, Outputs, headers_of
from tests.services import TopicReader, Topics, WorkerTopics
from tests.streams import Group, Inputs, make_topic
from worker.events import dead_letter
from worker.kafka import KafkaConfig
from worker.local.kafka import LocalKafka
from worker.topic_range import TopicRange

FAILING = range(10)
NUM_PRODUCTS = 40


@pytest.fixture
def past(kafka: LocalKafka, topics: Topics, producer: AIOKafkaProducer) -> Inputs:
    topic = topics.name("past")
    make_topic(kafka.bootstrap_servers, topic, 2)
    return Inputs(producer, topic)


@pytest.fixture
def settings(settings: dict[str, object], past: Inputs) -> dict[str, object]:
    return settings | {"partitions": 2, "backfill_topic": past.topic}


async def send(inputs: Inputs, start: int) -> None:
    """Products of which the first ten have a title that the bad release cannot take."""
    for number in range(start, start + NUM_PRODUCTS):
        fields = {"title": POISON} if number - start in FAILING else {}
        await inputs.producer.send_and_wait(
            inputs.topic,
            product(number, **fields),
            key=seller_key(number),
            headers=[("trace", b"%d" % number), ("reason", b"mine")],
        )


def results(outputs: Outputs) -> list[tuple[str, str, str]]:
    """Input topic, product and release of every categories event."""
    events = [orjson.loads(record.value or b"") for record in outputs.categories]
    return sorted((e["input"]["topic"], e["product_id"], e["release"]) for e in events)


async def test_round_trip(
    kafka: LocalKafka,
    settings: dict[str, object],
    noop: Path,
    taxonomy: Taxonomy,
    inputs: Inputs,
    past: Inputs,
    group: Group,
    group_id: str,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    past_group = Group(kafka.bootstrap_servers, group_id, past.topic)
    good = noop_release(tmp_path / "good", taxonomy, version="2").directory
    async with HotPathRun(settings, brittle(noop, BrittleEncoder())):
        await send(inputs, 0)
        await send(past, 100)
        await group.caught_up()
        await past_group.caught_up()
        # Under the same release they fail again: the second letter knows of the replay.
        said = await command(settings, tmp_path, "replay-dead-letters", "--limit", "1")
        assert said.code == 0, said.err
        await group.caught_up()
        await past_group.caught_up()

    letters = (await ledger.read()).dead_letters
    assert len(letters) == 2 * len(FAILING) + 1
    counted = [r for r in letters if headers_of(r).get("original-sortiment-replays") == "1"]
    assert len(counted) == 1
    assert all(headers_of(letter)["original-reason"] == "mine" for letter in letters)

    chosen = ("replay-dead-letters", "--reason", "model_failed", "--release", "noop/1")
    said = await command(settings, tmp_path, *chosen, "--max-replays", "1", "--dry-run")
    assert said.code == 0, said.err
    assert f"{2 * len(FAILING)} events would be sent; nothing was" in said.out
    assert said.out.startswith("model_failed  noop/1  20")
    assert "1 left out" in said.err
    said = await command(settings, tmp_path, "replay-dead-letters", "--reason", "tombstone")
    assert "0 events sent" in said.err
    said = await command(settings, tmp_path, *chosen, "--max-replays", "1")
    assert said.code == 0, said.err
    assert f"{2 * len(FAILING)} events sent" in said.err
    assert "--since 20" in said.out

    async with HotPathRun(settings, load_serving(good)):
        await group.caught_up()
        await past_group.caught_up()
    outputs = await ledger.read()
    assert len(outputs.dead_letters) == len(letters)
    wanted = [
        (topic, f"p{number}", "noop/2" if number - start in FAILING else "noop/1")
        for topic, start in ((inputs.topic, 0), (past.topic, 100))
        for number in range(start, start + NUM_PRODUCTS)
    ]
    assert results(outputs) == sorted(wanted)


async def test_what_cannot_be_sent_is_told_and_the_rest_is_sent(
    settings: dict[str, object],
    producer: AIOKafkaProducer,
    topics: Topics,
    worker_topics: WorkerTopics,
    read_all: TopicReader,
    tmp_path: Path,
    kafka: LocalKafka,
) -> None:
    for topic in (worker_topics.input_topic, worker_topics.dead_letters_topic):
        make_topic(kafka.bootstrap_servers, topic, 2)
    event = await producer.send_and_wait(worker_topics.input_topic, b"{", key=b"k")
    async with TopicRange(
        KafkaConfig(bootstrap_servers=kafka.bootstrap_servers), worker_topics.input_topic
    ) as events:
        (record,) = await events.take(10)
        assert await events.take(10) == []
    assert record.offset == event.offset
    letter = dead_letter(record, "invalid_json", "d", "r/1")
    foreign = [h for h in letter.headers if h[0] != "input-topic"] + [("input-topic", b"gone")]
    dead = worker_topics.dead_letters_topic
    await producer.send_and_wait(dead, b"{", key=b"k", headers=letter.headers)
    await producer.send_and_wait(dead, b"{", headers=foreign)
    await producer.send_and_wait(dead, b"{", headers=[*letter.headers, ("value-cut-to", b"1")])
    await producer.send_and_wait(dead, b"nobody's")

    said = await command(settings, tmp_path, "replay-dead-letters")
    assert said.code == 1
    assert "1 events sent" in said.err
    assert "1 cannot be sent: cut for their size" in said.err
    assert "1 not sent: they came from topic gone" in said.err
    assert "1 records" in said.err
    assert len(await read_all(worker_topics.input_topic)) == 2

    elsewhere = topics("elsewhere")
    said = await command(settings, tmp_path, "replay-dead-letters", "--to-topic", elsewhere)
    assert "2 events sent" in said.err
    assert [r.headers for r in await read_all(elsewhere)] == [(("sortiment-replays", b"1"),)] * 2
    said = await command(settings, tmp_path, "replay-dead-letters", "--to-topic", dead)
    assert said.code == 2
    assert "workers write to" in said.err
