"""The worker's topics: created where they are missing, checked where they are there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from worker.errors import BrokerError, ConfigError
from worker.events import DEAD_LETTER_HEADROOM_BYTES
from worker.kafka import KafkaConfig
from worker.topic_checks import CLEANUP, SIZE, TIMESTAMP, control_problems, judge, size_limit
from worker.topics_config import TopicsConfig

__all__ = [
    "TopicFacts",
    "ensure_control_topic",
    "ensure_shadow_topic",
    "ensure_topics",
]

_log = logging.getLogger(__name__)

# A broker is up some seconds after its container; a worker that gives up sooner restarts in vain.
BROKER_WAIT_S = 60.0
# librdkafka's mock cluster makes every topic with so many partitions, whatever is asked.
EMBEDDED_PARTITIONS = 4
_REQUEST_TIMEOUT_MS = 10_000
_RETRY_S = 1.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicFacts:
    """What the brokers really have.

    Attributes:
        partitions: number of partitions by topic.
        max_event_bytes: largest message that an input topic takes, framing included.
        created: the topics that were missing.
        differences: what is other than the settings say, and yet works.
    """

    partitions: Mapping[str, int]
    max_event_bytes: int
    created: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


async def ensure_topics(
    kafka: KafkaConfig, topics: TopicsConfig, *, wait_s: float = BROKER_WAIT_S
) -> TopicFacts:
    """Create the topics that are missing, check the others.

    The embedded broker does neither: there, its fixed facts come back.

    Args:
        wait_s: how long to wait for a broker to answer.

    Raises:
        ConfigError: topics that cannot be created or that the worker cannot run on, all of them,
            each with its remedy.
        BrokerError: no broker answered in time, or it failed.
    """
    if kafka.broker == "embedded":
        return TopicFacts(
            partitions=dict.fromkeys(topics.names, EMBEDDED_PARTITIONS),
            max_event_bytes=topics.max_event_bytes,
        )
    admin = await _connect(kafka, wait_s)
    try:
        return await _ensure(admin, topics)
    except KafkaError as error:
        raise BrokerError(f"checking topics at {kafka.bootstrap_servers}: {error!r}") from error
    finally:
        await admin.close()


async def ensure_control_topic(
    kafka: KafkaConfig, topics: TopicsConfig, *, wait_s: float = BROKER_WAIT_S
) -> None:
    """Create the control topic if it is missing, and only this one.

    Raises:
        ConfigError, BrokerError: as ``ensure_topics``.
    """
    if kafka.broker == "embedded":
        return
    async with _checking(kafka, topics.control, wait_s) as admin:
        await _create_missing(admin, topics, _control_topic(topics))
        problems = control_problems(topics, await _configs(admin, [topics.control]))
        if problems:
            raise ConfigError(problems)


async def ensure_shadow_topic(
    kafka: KafkaConfig, topics: TopicsConfig, *, wait_s: float = BROKER_WAIT_S
) -> None:
    """Create the shadow's topic if it is missing, and only this one.

    Raises:
        ConfigError, BrokerError: as ``ensure_topics``.
    """
    if kafka.broker == "embedded":
        return
    async with _checking(kafka, topics.shadow, wait_s) as admin:
        wanted = _topic(topics, topics.shadow, {TIMESTAMP: "LogAppendTime"})
        await _create_missing(admin, topics, wanted)


@asynccontextmanager
async def _checking(
    kafka: KafkaConfig, topic: str, wait_s: float
) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = await _connect(kafka, wait_s)
    try:
        yield admin
    except KafkaError as error:
        raise BrokerError(
            f"checking topic {topic} at {kafka.bootstrap_servers}: {error!r}"
        ) from error
    finally:
        await admin.close()


async def _create_missing(
    admin: AIOKafkaAdminClient, topics: TopicsConfig, wanted: NewTopic
) -> None:
    if wanted.name in await _partitions(admin):
        return
    if not topics.create:
        raise ConfigError(
            [f"topic {wanted.name} is missing and SORTIMENT_CREATE_TOPICS is false: create it"]
        )
    await _create(admin, topics, [wanted])


async def _connect(kafka: KafkaConfig, wait_s: float) -> AIOKafkaAdminClient:
    admin_kwargs = kafka.client_kwargs()
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        admin = AIOKafkaAdminClient(request_timeout_ms=_REQUEST_TIMEOUT_MS, **admin_kwargs)
        try:
            await admin.start()
        except KafkaError as error:
            await admin.close()
            if time.monotonic() >= deadline:
                raise BrokerError(
                    f"no broker at {kafka.bootstrap_servers} answered within {wait_s:g} s "
                    f"({error!r}); start one, or set KAFKA_BOOTSTRAP_SERVERS to where it is"
                ) from error
        else:
            return admin
        if not said:
            said = True
            _log.warning("waiting for a broker at %s", kafka.bootstrap_servers)
        await asyncio.sleep(_RETRY_S)


async def _ensure(admin: AIOKafkaAdminClient, topics: TopicsConfig) -> TopicFacts:
    before = await _partitions(admin)
    missing = [name for name in topics.names if name not in before]
    if missing and not topics.create:
        raise ConfigError(
            [
                f"topic {name} is missing and SORTIMENT_CREATE_TOPICS is false: create it, "
                "or let the worker"
                for name in missing
            ]
        )
    await _create(admin, topics, [t for t in _first(topics) if t.name in missing])
    # The others follow the input's real limit, which may be another than the setting.
    limit = size_limit(topics, await _configs(admin, [topics.input]))
    if topics.backfill in missing:
        await _create(admin, topics, [_topic(topics, topics.backfill, {SIZE: str(limit)})])
    elif topics.backfill is not None:
        limit = size_limit(topics, await _configs(admin, topics.inputs))
    if topics.dead_letters in missing:
        await _create(admin, topics, [_dead_letters_topic(topics, limit)])
    partitions = await _await_topics(admin, topics.names)
    configs = await _configs(admin, topics.names)
    problems, differences = judge(topics, partitions, configs)
    if problems:
        raise ConfigError(problems)
    for difference in differences:
        _log.warning("%s", difference)
    return TopicFacts(
        partitions=partitions,
        max_event_bytes=limit,
        created=tuple(missing),
        differences=differences,
    )


def _first(topics: TopicsConfig) -> list[NewTopic]:
    outputs = {TIMESTAMP: "LogAppendTime"}
    return [
        _topic(topics, topics.input, {SIZE: str(topics.max_event_bytes)}),
        _topic(topics, topics.categories, outputs),
        _topic(topics, topics.attributes, outputs),
        _control_topic(topics),
    ]


def _topic(topics: TopicsConfig, name: str, configs: dict[str, str]) -> NewTopic:
    return NewTopic(name, topics.partitions, topics.replication_factor, topic_configs=configs)


def _dead_letters_topic(topics: TopicsConfig, limit: int) -> NewTopic:
    size = str(limit + DEAD_LETTER_HEADROOM_BYTES)
    return _topic(topics, topics.dead_letters, {TIMESTAMP: "LogAppendTime", SIZE: size})


def _control_topic(topics: TopicsConfig) -> NewTopic:
    configs = {CLEANUP: "compact"}
    return NewTopic(topics.control, 1, topics.replication_factor, topic_configs=configs)


async def _create(
    admin: AIOKafkaAdminClient, topics: TopicsConfig, wanted: Sequence[NewTopic]
) -> None:
    if not wanted:
        return
    response = await admin.create_topics(list(wanted))
    problems = []
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        # Another worker that starts at the same moment has created it: that is as good.
        if code == 0 or error is TopicAlreadyExistsError:
            continue
        remedy = "create it by hand, or allow this user to"
        if error is InvalidReplicationFactorError:
            remedy = (
                f"SORTIMENT_REPLICATION_FACTOR is {topics.replication_factor}: "
                "at most the number of brokers"
            )
        said = next((text for text in message if text), error.__name__)
        problems.append(f"topic {name} cannot be created: {said}; {remedy}")
    if problems:
        raise ConfigError(problems)
    await _await_topics(admin, [topic.name for topic in wanted])


async def _await_topics(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Partitions by topic, once every broker asked knows all of them."""
    deadline = time.monotonic() + _REQUEST_TIMEOUT_MS / 1000
    while True:
        present = await _partitions(admin)
        missing = [name for name in names if name not in present]
        if not missing:
            return {name: present[name] for name in names}
        if time.monotonic() >= deadline:
            raise BrokerError(f"topics {', '.join(missing)} were created and are not to be seen")
        await asyncio.sleep(_POLL_S)


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    # All topics: asking for one by name makes some brokers create it.
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in await admin.describe_topics()
        if topic["partitions"]
    }


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Settings by topic, all of which are there; one that may not be described has none."""
    deadline = time.monotonic() + _REQUEST_TIMEOUT_MS / 1000
    wanted = list(names)
    found: dict[str, dict[str, str]] = {}
    while wanted:
        unknown = []
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
        for response in await admin.describe_configs(resources):
            for code, message, _, name, entries, *_ in response.resources:
                error = for_code(code)
                # The broker that was asked may not have heard of a topic that is new.
                if error is UnknownTopicOrPartitionError and time.monotonic() < deadline:
                    unknown.append(name)
                    continue
                if code:
                    _log.warning(
                        "settings of topic %s cannot be checked: %s",
                        name,
                        message or error.__name__,
                    )
                found[name] = {entry[0]: entry[1] for entry in entries}
        wanted = unknown
        if wanted:
            await asyncio.sleep(_POLL_S)
    return found
