"""The embedded broker is sent no more than it keeps."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from worker.embedded_room import EmbeddedRoom
from worker.kafka import KafkaConfig


class CommittedOffsets:
    """Answers as a consumer of the group would."""

    def __init__(self, offsets: dict[int, int]) -> None:
        self.offsets = offsets

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.offsets.get(partition.partition)


def room(offsets: dict[int, int] | None) -> EmbeddedRoom:
    made = EmbeddedRoom(KafkaConfig(bootstrap_servers="nowhere:1"), "products", "group", 2)
    if offsets is not None:
        made._consumer = CommittedOffsets(offsets)
    return made


def test_another_broker_always_has_room() -> None:
    unlimited = room(None)
    unlimited.sent(0, 10**9, 10**9, 10**12)
    assert unlimited.has_room()


@pytest.mark.parametrize(
    ("events", "value_bytes", "has_room"),
    [(1_000, 1_000_000, True), (1_000, 4_000_000, False), (60_000, 600_000, False)],
)
async def test_unread_bytes_and_events_of_one_partition_count(
    events: int, value_bytes: int, has_room: bool
) -> None:
    limited = room({0: 0, 1: 0})
    limited.sent(1, events, events, value_bytes)
    assert limited.has_room() == has_room


async def test_what_the_group_commits_makes_room() -> None:
    offsets: dict[int, int] = {}
    limited = room(offsets)
    limited.sent(0, 1_000, 1_000, 4_000_000)
    await limited.look_again()
    assert not limited.has_room()
    offsets[0] = 500
    await limited.look_again()
    assert limited.has_room()
