"""What the worker's integration tests have in common: a release, inputs, a group, a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from models.noop import noop_release
from models.release import Release
from models.taxonomy import Taxonomy
from tests.catalog import small_taxonomy
from tests.control_reader import Control
from tests.ledger import Ledger
from tests.proxy import Proxy
from tests.services import TopicReader, WorkerTopics
from tests.streams import Group, Inputs
from worker.kafka import KafkaConfig
from worker.local.kafka import LocalKafka
from worker.local.redis import LocalRedis, start_redis
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    return small_taxonomy()


@pytest.fixture(scope="session")
def noop(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Path:
    """The directory of release noop/1."""
    return noop_release(tmp_path_factory.mktemp("releases") / "noop", taxonomy).directory


@pytest.fixture
def second(tmp_path: Path, taxonomy: Taxonomy) -> Path:
    """The directory of release noop/2."""
    return noop_release(tmp_path / "second", taxonomy, version="2").directory


@pytest.fixture
def release(tmp_path: Path, taxonomy: Taxonomy) -> Callable[[str], Release]:
    """``release("1")`` writes release noop/1."""
    return lambda version: noop_release(tmp_path / f"noop-{version}", taxonomy, version=version)


@pytest.fixture
def config(kafka: LocalKafka) -> KafkaConfig:
    """How the control plane reaches the broker."""
    return KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
def names(worker_topics: WorkerTopics) -> TopicsConfig:
    """The worker's topics as the control plane makes them, of three partitions."""
    return TopicsConfig(
        input=worker_topics.input_topic,
        categories=worker_topics.categories_topic,
        attributes=worker_topics.attributes_topic,
        dead_letters=worker_topics.dead_letters_topic,
        control=worker_topics.control_topic,
        partitions=3,
    )


@pytest.fixture
async def control(
    config: KafkaConfig, names: TopicsConfig, tmp_path: Path
) -> AsyncIterator[Callable[..., Control]]:
    """``control(pinned=None)`` makes a reader of the control topic, stopped at the end."""
    await ensure_topics(config, names)
    made: list[Control] = []

    def make(pinned: str | None = None) -> Control:
        made.append(Control(config, names.control, tmp_path / "cache", pinned))
        return made[-1]

    yield make
    for one in made:
        await one.service.stop()


@pytest.fixture
def settings(kafka: LocalKafka, worker_topics: WorkerTopics, group_id: str) -> dict[str, object]:
    """A worker's settings by name: broker, topics and group of this test."""
    return asdict(worker_topics) | {
        "bootstrap_servers": kafka.bootstrap_servers,
        "group_id": group_id,
    }


@pytest.fixture(params=["exactly_once", "at_least_once"])
def delivery(request: pytest.FixtureRequest) -> str:
    """Each kind of delivery in turn, for tests of what holds for both."""
    kind: str = request.param
    return kind


@pytest.fixture
def inputs(producer: AIOKafkaProducer, worker_topics: WorkerTopics) -> Inputs:
    """Writes to the worker's input topic, which must be there."""
    return Inputs(producer, worker_topics.input_topic)


@pytest.fixture
def group(kafka: LocalKafka, worker_topics: WorkerTopics, group_id: str) -> Group:
    """The worker's group on its input topic."""
    return Group(kafka.bootstrap_servers, group_id, worker_topics.input_topic)


@pytest.fixture
def ledger(
    inputs: Inputs, taxonomy: Taxonomy, worker_topics: WorkerTopics, read_all: TopicReader
) -> Ledger:
    """What was sent to the worker, and what is in its three output topics."""
    return Ledger(inputs, taxonomy, worker_topics, read_all)


@pytest.fixture
def own_redis() -> Iterator[LocalRedis]:
    """A Redis that this test may stop and change."""
    with start_redis({}) as running:
        yield running


@pytest.fixture
def redis_proxy(own_redis: LocalRedis) -> Iterator[Proxy]:
    """The network between a worker and ``own_redis``."""
    with Proxy(own_redis.url.removeprefix("redis://").removesuffix("/0")) as running:
        yield running
