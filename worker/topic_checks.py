"""What the brokers' topics must be for the worker to run, and what is merely worth telling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.events import DEAD_LETTER_HEADROOM_BYTES
from worker.topics_config import TopicsConfig

__all__ = ["CLEANUP", "SIZE", "TIMESTAMP", "control_problems", "judge", "size_limit"]

SIZE = "max.message.bytes"
CLEANUP = "cleanup.policy"
TIMESTAMP = "message.timestamp.type"


def judge(
    topics: TopicsConfig,
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
) -> tuple[list[str], tuple[str, ...]]:
    """What the worker cannot run on, and what is merely other than the settings say.

    Args:
        partitions: by topic.
        configs: Kafka's settings by topic; one that could not be read is taken to be right.
    """
    limit = size_limit(topics, configs)
    problems = _dead_letter_problems(topics, configs, limit) + control_problems(topics, configs)
    return problems, _differences(topics, partitions, configs)


def size_limit(topics: TopicsConfig, configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of the largest message that an input takes, of those in ``configs``."""
    return max(
        int(configs.get(name, {}).get(SIZE, topics.max_event_bytes))
        for name in topics.inputs
        if name in configs or name == topics.input
    )


def _dead_letter_problems(
    topics: TopicsConfig, configs: Mapping[str, Mapping[str, str]], limit: int
) -> list[str]:
    size = configs.get(topics.dead_letters, {}).get(SIZE)
    wanted = limit + DEAD_LETTER_HEADROOM_BYTES
    if size is None or int(size) >= wanted:
        return []
    return [
        f"topic {topics.dead_letters} has {SIZE}={size}, topic {' or '.join(topics.inputs)} has "
        f"{SIZE}={limit}: a dead letter may be 64 KiB larger than its event, so the former must "
        f"be {wanted} or more; {_alter(topics.dead_letters, SIZE, wanted)}"
    ]


def control_problems(topics: TopicsConfig, configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Why the control topic would forget; empty where it does not."""
    policy = configs.get(topics.control, {}).get(CLEANUP)
    if policy is None or policy == "compact":
        return []
    return [
        f"topic {topics.control} has {CLEANUP}={policy}: the active release would be forgotten "
        f"after the retention time; {_alter(topics.control, CLEANUP, 'compact')}"
    ]


def _differences(
    topics: TopicsConfig,
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    found = []
    wanted = str(topics.max_event_bytes)
    for name in topics.inputs:
        count = partitions[name]
        if count != topics.partitions:
            found.append(
                f"topic {name} has {count} partitions, SORTIMENT_PARTITIONS is "
                f"{topics.partitions}: going on with {count}"
            )
        if (size := configs.get(name, {}).get(SIZE, wanted)) != wanted:
            found.append(
                f"topic {name} has {SIZE}={size}, SORTIMENT_MAX_EVENT_BYTES is {wanted}: going "
                "on with the topic's"
            )
    found += [
        f"topic {name} has {TIMESTAMP}={kind}: latencies measured on it are the worker's clock; "
        + _alter(name, TIMESTAMP, "LogAppendTime")
        for name in (topics.categories, topics.attributes, topics.dead_letters)
        if (kind := configs.get(name, {}).get(TIMESTAMP, "LogAppendTime")) != "LogAppendTime"
    ]
    return tuple(found)


def _alter(topic: str, setting: str, value: object) -> str:
    return (
        f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} "
        f"--add-config {setting}={value}"
    )
