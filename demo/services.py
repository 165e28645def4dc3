"""Broker, Redis and one worker with the release, started in order and ended in reverse."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from demo.narration import Narrator
from demo.trained import program
from worker.kafka import KafkaConfig
from worker.local.child import ChildProcess
from worker.local.errors import LocalServiceError
from worker.local.kafka import LocalKafka, start_kafka
from worker.local.redis import start_redis
from worker.local.worker_process import WorkerProcess
from worker.settings import PREFIX
from worker.topics_config import TopicsConfig

__all__ = ["BrokerChoice", "Running", "run_services"]

BrokerChoice = Literal["auto", "given", "kafka", "embedded"]

# The demo's products are few: the drain takes well under a second, and Ctrl-C must not wait.
_DRAIN_S = 5.0
_WORKER_GRACE_S = 12.0
_ANNOUNCE_S = 120.0
_DELETE_S = 10.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Running:
    """What the products go through.

    Attributes:
        broker: for people.
        is_embedded: whether it is the mock cluster, whose timestamps are the worker's clock.
    """

    kafka: KafkaConfig
    topics: TopicsConfig
    group_id: str
    broker: str
    worker: WorkerProcess

    @property
    def is_embedded(self) -> bool:
        return self.kafka.broker == "embedded"

    def check(self) -> None:
        """See that the worker still runs.

        Raises:
            LocalServiceError: it has ended; with its log.
        """
        status = self.worker.child.poll()
        if status is not None:
            raise LocalServiceError(
                f"the worker ended with status {status}\n{self.worker.child.log_tail()}"
            )


@contextmanager
def run_services(
    choice: BrokerChoice, release: Path, directory: Path, narrator: Narrator
) -> Iterator[Running]:
    """Broker, Redis and a worker that serves ``release``, until the end of the block.

    Args:
        directory: working directory of the worker; its logs go there.

    Raises:
        LocalServiceError: one of them did not start; with its log.
    """
    narrator.step("Broker and Redis")
    with _broker(choice, narrator) as broker, start_redis(os.environ) as redis:
        embedded = broker.source == "embedded"
        kafka = KafkaConfig(
            bootstrap_servers=broker.bootstrap_servers, broker="embedded" if embedded else "kafka"
        )
        topics, group_id = _names(broker)
        narrator.say(f"{broker.description}; Redis from {redis.source}")
        if embedded and choice == "auto":
            narrator.say("no Maven, no Docker: not a real Kafka, good for a first look")
        settings = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "broker": kafka.broker,
            "input_topic": topics.input,
            "categories_topic": topics.categories,
            "attributes_topic": topics.attributes,
            "dead_letters_topic": topics.dead_letters,
            "control_topic": topics.control,
            "group_id": group_id,
            "redis_url": redis.url,
            "drain_timeout_s": _DRAIN_S,
        }
        narrator.step("Worker: reads the release from the control topic, warms up, joins its group")
        try:
            with WorkerProcess(
                settings, directory=directory, environ=os.environ, grace_s=_WORKER_GRACE_S
            ) as worker:
                _announce(release, settings, directory, worker)
                worker.wait_ready()
                narrator.say(f"ready: {worker.url}/status, /metrics; log {worker.log_path}")
                yield Running(kafka, topics, group_id, broker.description, worker)
        finally:
            if broker.source == "given":
                asyncio.run(_delete(kafka, topics, narrator))


def _broker(choice: BrokerChoice, narrator: Narrator) -> LocalKafka:
    if choice == "auto":
        return start_kafka(os.environ, allow_embedded=True, say=narrator.say)
    if choice == "kafka":
        environ = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
        return start_kafka(environ, say=narrator.say)
    return start_kafka(os.environ, source=choice, say=narrator.say)


def _names(broker: LocalKafka) -> tuple[TopicsConfig, str]:
    """The usual names on a broker of our own; on a given one, names that nobody else has."""
    if broker.source != "given":
        return TopicsConfig(), "sortiment"
    prefix = f"sortiment-demo-{uuid.uuid4().hex[:8]}"
    usual = TopicsConfig()
    return TopicsConfig(
        input=f"{prefix}-{usual.input}",
        categories=f"{prefix}-{usual.categories}",
        attributes=f"{prefix}-{usual.attributes}",
        dead_letters=f"{prefix}-{usual.dead_letters}",
        control=f"{prefix}-control",
    ), prefix


def _announce(
    release: Path, settings: Mapping[str, object], directory: Path, worker: WorkerProcess
) -> None:
    """Verify and announce while the worker starts: both load the model once."""
    flags = [
        f"--{name.replace('_', '-')}={settings[name]}"
        for name in ("bootstrap_servers", "broker", "control_topic")
    ]
    environ = {
        k: v
        for k, v in os.environ.items()
        if k != "KAFKA_BOOTSTRAP_SERVERS" and not k.startswith(PREFIX)
    }
    command = [program("sortiment-worker"), "announce", str(release), *flags]
    log_path = directory / "announce.log"
    deadline_s = time.monotonic() + _ANNOUNCE_S
    with ChildProcess("announce", command, log_path, env=environ, cwd=directory) as child:
        while (status := child.poll()) is None:
            if worker.child.poll() is not None:
                raise LocalServiceError(f"the worker has ended\n{worker.child.log_tail()}")
            if time.monotonic() > deadline_s:
                raise LocalServiceError(f"announcing takes too long\n{child.log_tail()}")
            time.sleep(_POLL_S)
    if status != 0:
        raise LocalServiceError(f"announcing the release failed\n{child.log_tail()}")


async def _delete(kafka: KafkaConfig, topics: TopicsConfig, narrator: Narrator) -> None:
    """Leave nothing behind on somebody else's broker."""
    admin = AIOKafkaAdminClient(**kafka.client_kwargs())
    try:
        async with asyncio.timeout(_DELETE_S):
            await admin.start()
            await admin.delete_topics(list(topics.names))
    except (KafkaError, TimeoutError) as error:
        narrator.say(f"topics {', '.join(topics.names)} could not be deleted: {error!r}")
    finally:
        await admin.close()
