"""How many partitions topics have, asked without making them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from worker.errors import BrokerError, ConfigError
from worker.kafka import KafkaConfig
from worker.topics import EMBEDDED_PARTITIONS

__all__ = ["no_broker", "partition_counts"]

# A broker of KRaft learns of a topic from the controller, some tens of milliseconds later.
_NEW_TOPIC_S = 1.0
_TOPIC_POLL_S = 0.1


async def partition_counts(kafka: KafkaConfig, topics: Sequence[str]) -> dict[str, int]:
    """The number of partitions of each topic; those of the embedded broker are known.

    Raises:
        BrokerError: no broker answers.
        ConfigError: topics that are missing.
    """
    if kafka.broker == "embedded":
        return dict.fromkeys(topics, EMBEDDED_PARTITIONS)
    admin = AIOKafkaAdminClient(**kafka.client_kwargs())
    deadline_s = time.monotonic() + _NEW_TOPIC_S
    try:
        await admin.start()
        while True:
            # All topics: asking for one by name makes some brokers create it.
            described = await admin.describe_topics()
            counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
            missing = [topic for topic in topics if not counts.get(topic)]
            if not missing:
                return {topic: counts[topic] for topic in topics}
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(_TOPIC_POLL_S)
    except KafkaError as error:
        raise no_broker(kafka, error) from error
    finally:
        await admin.close()
    raise ConfigError(
        [
            f"topic {topic} is missing at {kafka.bootstrap_servers}: "
            "`sortiment-worker topics create` or a worker's start creates it"
            for topic in missing
        ]
    )


def no_broker(kafka: KafkaConfig, error: KafkaError) -> BrokerError:
    """What to say where none answers."""
    return BrokerError(
        f"no broker answers at {kafka.bootstrap_servers} ({error!r}); start one, or set "
        "KAFKA_BOOTSTRAP_SERVERS to where it is"
    )
