"""What is said about topics that differ; the broker's side is in tests/integration."""

from __future__ import annotations

from dataclasses import replace

from worker.kafka import KafkaConfig
from worker.topic_checks import judge
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

TOPICS = TopicsConfig()
PARTITIONS = {**dict.fromkeys(TOPICS.names, 12), TOPICS.control: 1}
APPENDED = {"message.timestamp.type": "LogAppendTime"}
CONFIGS = {
    TOPICS.input: {"max.message.bytes": "1048576"},
    TOPICS.categories: APPENDED,
    TOPICS.attributes: APPENDED,
    TOPICS.dead_letters: {**APPENDED, "max.message.bytes": str(1_048_576 + 65_536)},
    TOPICS.control: {"cleanup.policy": "compact"},
}


async def test_the_embedded_broker_has_fixed_facts() -> None:
    facts = await ensure_topics(
        KafkaConfig(bootstrap_servers="nobody:1", broker="embedded"), TOPICS
    )

    assert set(facts.partitions) == set(TOPICS.names)
    assert set(facts.partitions.values()) == {4}
    assert facts.max_event_bytes == TOPICS.max_event_bytes


def test_topics_as_the_worker_makes_them_are_right() -> None:
    assert judge(TOPICS, PARTITIONS, CONFIGS) == ([], ())


def test_settings_that_may_not_be_read_are_taken_to_be_right() -> None:
    assert judge(TOPICS, PARTITIONS, {}) == ([], ())


def test_a_small_dead_letter_topic_is_a_problem_with_both_values_and_the_remedy() -> None:
    configs = {**CONFIGS, TOPICS.dead_letters: {**APPENDED, "max.message.bytes": "1048588"}}

    (problem,), _ = judge(TOPICS, PARTITIONS, configs)

    assert "max.message.bytes=1048588" in problem
    assert "max.message.bytes=1048576" in problem
    assert "kafka-configs.sh" in problem
    assert "max.message.bytes=1114112" in problem


def test_a_control_topic_that_forgets_is_a_problem() -> None:
    configs = {**CONFIGS, TOPICS.control: {"cleanup.policy": "compact,delete"}}

    (problem,), _ = judge(TOPICS, PARTITIONS, configs)

    assert "cleanup.policy=compact,delete" in problem
    assert "cleanup.policy=compact" in problem


def test_another_number_of_partitions_is_said_and_used() -> None:
    problems, (difference,) = judge(TOPICS, {**PARTITIONS, TOPICS.input: 5}, CONFIGS)

    assert problems == []
    assert "5 partitions" in difference
    assert "SORTIMENT_PARTITIONS is 12" in difference


def test_another_limit_and_other_timestamps_are_said() -> None:
    configs = {
        **CONFIGS,
        TOPICS.input: {"max.message.bytes": "1000000"},
        TOPICS.attributes: {"message.timestamp.type": "CreateTime"},
    }

    problems, (limit, timestamps) = judge(TOPICS, PARTITIONS, configs)

    assert problems == []
    assert "max.message.bytes=1000000" in limit
    assert TOPICS.attributes in timestamps
    assert "LogAppendTime" in timestamps


def test_dead_letters_must_hold_the_largest_event_of_either_input() -> None:
    topics = replace(TOPICS, backfill="past")
    partitions = {**PARTITIONS, "past": 12}
    configs = {**CONFIGS, "past": {"max.message.bytes": "1048576"}}
    assert judge(topics, partitions, configs) == ([], ())

    configs["past"] = {"max.message.bytes": "2097152"}
    (problem,), (difference,) = judge(topics, {**partitions, "past": 12}, configs)

    assert "topic products or past has max.message.bytes=2097152" in problem
    assert "max.message.bytes=2162688" in problem
    assert difference.startswith("topic past has max.message.bytes=2097152")


def test_a_backfill_topic_is_one_of_the_names_where_there_is_one() -> None:
    assert len(TOPICS.names) == 5
    assert replace(TOPICS, backfill="past").names[1] == "past"
