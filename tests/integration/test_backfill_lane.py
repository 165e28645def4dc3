"""Past products beside live ones, on a real broker: later, and exactly as carefully."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from models.taxonomy import Taxonomy
from tests.catalog import products
from tests.hot_path_runs import HotPathRun, load_serving, sample
from tests.ledger import Ledger, Outputs, audit, headers_of
from tests.polling import until
from tests.services import Record, TopicReader, Topics, WorkerTopics
from tests.streams import Group, Inputs, make_topic
from worker.local.kafka import LocalKafka

PARTITIONS = 2
MAX_IN_FLIGHT = 400


@pytest.fixture
def past(kafka: LocalKafka, topics: Topics, producer: AIOKafkaProducer) -> Inputs:
    """Writes to the backfill topic."""
    topic = topics.name("past")
    make_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    return Inputs(producer, topic)


@pytest.fixture
def past_group(kafka: LocalKafka, group_id: str, past: Inputs) -> Group:
    return Group(kafka.bootstrap_servers, group_id, past.topic)


@pytest.fixture
def settings(settings: dict[str, object], past: Inputs) -> dict[str, object]:
    return settings | {
        "partitions": PARTITIONS,
        "backfill_topic": past.topic,
        "max_in_flight_products": MAX_IN_FLIGHT,
        "max_poll_records": 100,
        "max_batch_products": 100,
    }


@pytest.fixture
def live(kafka: LocalKafka, inputs: Inputs) -> Inputs:
    make_topic(kafka.bootstrap_servers, inputs.topic, PARTITIONS)
    return inputs


def origin(record: Record) -> str:
    if record.headers:
        return headers_of(record)["input-topic"]
    topic: str = orjson.loads(record.value or b"")["input"]["topic"]
    return topic


def of(outputs: Outputs, topic: str) -> Outputs:
    """The outputs of one input topic."""
    return Outputs(
        *(
            [record for record in records if origin(record) == topic]
            for records in (outputs.categories, outputs.attributes, outputs.dead_letters)
        )
    )


async def test_the_backfill_stands_still_until_nothing_live_waits(
    settings: dict[str, object],
    delivery: str,
    noop: Path,
    taxonomy: Taxonomy,
    live: Inputs,
    past: Inputs,
    group: Group,
    past_group: Group,
    ledger: Ledger,
) -> None:
    await past.send([*products(2_000), (b"bad", b"{")])
    await live.send(products(4_000, start=10_000))

    async with HotPathRun(settings | {"delivery": delivery}, load_serving(noop)) as run:
        await group.caught_up()
        await past_group.caught_up()
        status = run.hot_path.status()
        await until(
            lambda: None if sample(run.metrics, "backfill_held") == 0 else "held", 30, "not held"
        )

    outputs = await ledger.read()
    (bad,) = (place for place, event in past.events.items() if event == (b"bad", b"{"))
    assert not audit(live, of(outputs, live.topic), taxonomy, partitions=PARTITIONS).places
    dead = {bad: "invalid_json"}
    of_past = of(outputs, past.topic)
    assert not audit(past, of_past, taxonomy, dead=dead, partitions=PARTITIONS).places
    assert status["backfill"]["topic"] == past.topic
    # When the first past product was taken, all live ones were, and half the room was free.
    late = 0
    for partition in range(PARTITIONS):
        topics = [origin(r) for r in outputs.categories if r.partition == partition]
        late += topics[topics.index(past.topic) :].count(live.topic)
    assert late <= MAX_IN_FLIGHT // 2


async def test_live_products_overtake_a_backfill_that_is_under_way(
    settings: dict[str, object],
    noop: Path,
    taxonomy: Taxonomy,
    live: Inputs,
    past: Inputs,
    group: Group,
    past_group: Group,
    ledger: Ledger,
) -> None:
    await past.send(products(2_000))
    async with HotPathRun(settings | {"backfill_poll_records": 1}, load_serving(noop)):
        await until(
            lambda: None if any(done for done, _ in past_group.offsets().values()) else "nothing",
            60,
            "the backfill begins",
        )
        await live.send(products(300, start=10_000))
        await group.caught_up()
        behind = [end - done for done, end in past_group.offsets().values()]
        assert sum(behind) > 0
        await past_group.caught_up()

    outputs = await ledger.read()
    for inputs in (live, past):
        found = of(outputs, inputs.topic)
        assert not audit(inputs, found, taxonomy, partitions=PARTITIONS).places


async def test_workers_that_come_and_go_share_the_backfill(
    settings: dict[str, object],
    noop: Path,
    taxonomy: Taxonomy,
    live: Inputs,
    past: Inputs,
    group: Group,
    past_group: Group,
    ledger: Ledger,
) -> None:
    await past.send(products(4_000))
    serving = load_serving(noop)
    async with HotPathRun(settings, serving):
        async with HotPathRun(settings, serving):
            await live.send(products(500, start=10_000))
            await group.caught_up()
        await live.send(products(500, start=20_000))
        await group.caught_up()
        await past_group.caught_up()

    outputs = await ledger.read()
    for inputs in (live, past):
        found = of(outputs, inputs.topic)
        assert not audit(inputs, found, taxonomy, partitions=PARTITIONS).places


async def test_the_worker_makes_the_backfill_topic_and_tells_of_its_lag(
    settings: dict[str, object],
    noop: Path,
    topics: Topics,
    read_all: TopicReader,
    worker_topics: WorkerTopics,
    producer: AIOKafkaProducer,
) -> None:
    past = Inputs(producer, topics.name("made"))
    made = settings | {"backfill_topic": past.topic}
    async with HotPathRun(made, load_serving(noop)) as run:
        await past.send(products(50))
        await read_all(worker_topics.categories_topic, 50, read_committed=True)

        def lags() -> str | None:
            found = {
                (lane["topic"], lane["partition"]): lane["lag"]
                for lane in run.hot_path.status()["assigned"]
            }
            wanted = {
                (topic, number): 0
                for topic in (worker_topics.input_topic, past.topic)
                for number in range(PARTITIONS)
            }
            return None if found == wanted else str(found)

        await until(lags, 30, "no lag")
