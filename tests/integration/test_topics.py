"""The worker's topics on a real Kafka: made as they must be, or checked and told of."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.services import Topics
from worker.errors import BrokerError, ConfigError
from worker.kafka import KafkaConfig
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig


async def configs(kafka: KafkaConfig, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**kafka.client_kwargs())
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


async def test_two_workers_at_once_make_them_as_they_must_be(
    config: KafkaConfig, names: TopicsConfig
) -> None:
    first, second = await asyncio.gather(ensure_topics(config, names), ensure_topics(config, names))

    assert first.partitions == second.partitions
    assert first.partitions == {name: 1 if name == names.control else 3 for name in names.names}
    assert first.max_event_bytes == second.max_event_bytes == 1_048_576
    assert (await configs(config, names.input))["max.message.bytes"] == "1048576"
    assert (await configs(config, names.control))["cleanup.policy"] == "compact"
    dead = await configs(config, names.dead_letters)
    assert dead["max.message.bytes"] == str(1_048_576 + 65_536)
    for output in (names.categories, names.attributes, names.dead_letters):
        settings = await configs(config, output)
        assert settings["message.timestamp.type"] == "LogAppendTime"


async def test_another_number_of_partitions_is_said_and_used(
    config: KafkaConfig, names: TopicsConfig, topics: Topics
) -> None:
    there = topics("in", partitions=5, config={"max.message.bytes": "1048576"})

    facts = await ensure_topics(config, replace(names, input=there))

    assert facts.partitions[there] == 5
    (difference,) = facts.differences
    assert "5 partitions" in difference


async def test_the_dead_letter_topic_follows_the_real_limit_of_the_input(
    config: KafkaConfig, names: TopicsConfig, topics: Topics
) -> None:
    there = topics("in", partitions=3, config={"max.message.bytes": "2000000"})

    facts = await ensure_topics(config, replace(names, input=there))

    assert facts.max_event_bytes == 2_000_000
    dead = await configs(config, names.dead_letters)
    assert dead["max.message.bytes"] == str(2_000_000 + 65_536)


async def test_a_small_dead_letter_topic_stops_the_start(
    config: KafkaConfig, names: TopicsConfig, topics: Topics
) -> None:
    there = topics("dead", config={"max.message.bytes": "1048588"})

    with pytest.raises(ConfigError, match=r"max\.message\.bytes=1048588.*=1048576.*--alter"):
        await ensure_topics(config, replace(names, dead_letters=there))


async def test_a_control_topic_that_forgets_stops_the_start(
    config: KafkaConfig, names: TopicsConfig, topics: Topics
) -> None:
    there = topics("control")

    with pytest.raises(ConfigError, match=r"cleanup\.policy=delete.*--alter"):
        await ensure_topics(config, replace(names, control=there))


async def test_missing_topics_are_all_named_where_none_may_be_created(
    config: KafkaConfig, names: TopicsConfig
) -> None:
    with pytest.raises(ConfigError) as caught:
        await ensure_topics(config, replace(names, create=False))

    assert len(caught.value.problems) == 5


async def test_more_replicas_than_brokers_name_the_setting(
    config: KafkaConfig, names: TopicsConfig
) -> None:
    with pytest.raises(ConfigError, match="SORTIMENT_REPLICATION_FACTOR is 50"):
        await ensure_topics(config, replace(names, replication_factor=50))


async def test_no_broker_is_said_with_its_address(names: TopicsConfig) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"

        with pytest.raises(BrokerError, match=f"{address}.*KAFKA_BOOTSTRAP_SERVERS"):
            await ensure_topics(KafkaConfig(bootstrap_servers=address), names, wait_s=0)
