"""Real services for tests: a Kafka and a Redis for the whole run, unique names for each test.

A service that cannot be had is an error that says how to get one; nothing is skipped.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.services import TopicReader, Topics, WorkerTopics
from worker.local.kafka import LocalKafka, start_kafka
from worker.local.kafka_server import MAX_MESSAGE_BYTES
from worker.local.redis import LocalRedis, start_redis
from worker.local.worker_process import WorkerProcess

# A background job of a shell ignores Ctrl-C, and so would every process that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """A real Apache Kafka: ``KAFKA_BOOTSTRAP_SERVERS``, else one started here."""
    with start_kafka(os.environ) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[LocalRedis]:
    """A real redis-server: ``REDIS_URL``, else one started here. Use a prefix; never flush."""
    with start_redis(os.environ) as running:
        yield running


@pytest.fixture
def topics(kafka: LocalKafka) -> Iterator[Topics]:
    """``topics("in", partitions=4, config={...})`` makes a topic and returns its unique name."""
    made = Topics(kafka.bootstrap_servers)
    yield made
    made.remove()


@pytest.fixture
def worker_topics(topics: Topics) -> WorkerTopics:
    """Unique names of a worker's topics, which it makes itself."""
    return WorkerTopics.unique(topics)


@pytest.fixture
def group_id() -> str:
    """A consumer group that no other test has."""
    return f"group-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def producer(kafka: LocalKafka) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that takes events as large as the broker does."""
    started = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, acks="all", max_request_size=MAX_MESSAGE_BYTES
    )
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


@pytest.fixture
def read_all(kafka: LocalKafka) -> TopicReader:
    """``await read_all(topic, until=100)``: events from the beginning, without a group."""
    return TopicReader(kafka.bootstrap_servers)


@pytest.fixture
def worker_process(
    kafka: LocalKafka, worker_topics: WorkerTopics, group_id: str, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """``worker_process(release=..., ready=True, **settings)`` runs `sortiment-worker run`.

    Settings by their names in ``worker.settings``; broker, topics and group are those of the
    test. Waits for ``/readyz`` unless ``ready=False``. A failing test shows the ends of the logs.
    """
    started: list[WorkerProcess] = []

    def start(*, ready: bool = True, **settings: object) -> WorkerProcess:
        given = asdict(worker_topics) | {
            "bootstrap_servers": kafka.bootstrap_servers,
            "group_id": group_id,
            "torch_threads": 1,
        }
        process = WorkerProcess(
            given | settings,
            directory=tmp_path,
            environ=os.environ,
            name=f"worker-{len(started) + 1}",
        )
        started.append(process)
        if ready:
            process.wait_ready()
        return process

    yield start
    for process in started:
        process.stop()
        print(process.child.log_tail(200))  # noqa: T201 - pytest shows it for a failed test
