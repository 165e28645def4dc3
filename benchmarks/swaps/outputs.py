"""All that came out, as columns: when, of which input, by which release."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition
from numpy.typing import NDArray

from benchmarks.stream.inputs import PARTITIONS

__all__ = ["Outputs", "read_outputs"]

_CHUNK = 10_000
_WAIT_S = 0.2
_SILENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """One topic, a row an event.

    Attributes:
        partition, offset: of the input event, int64.
        release: number of the release that made it, int64; -1: one that was never announced.
        at_ms: when the broker appended it, epoch milliseconds, int64.
    """

    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    release: NDArray[np.int64]
    at_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at_ms)


def read_outputs(servers: str, topic: str, numbers: Mapping[str, int]) -> Outputs:
    """What a reader of committed events finds in an output topic.

    Args:
        numbers: of the releases, by id.

    Raises:
        RuntimeError: the topic cannot be read to its end.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "benchmark-swaps",  # asked for, never joined
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
    rows: list[tuple[int, int, int, int]] = []
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        at_end: set[int | None] = set()
        came_s = time.monotonic()
        while len(at_end) < PARTITIONS:
            for message in consumer.consume(_CHUNK, _WAIT_S):
                error = message.error()
                if error is None:
                    event = orjson.loads(message.value() or b"")
                    origin = event["input"]
                    number = numbers.get(event["release"], -1)
                    at_ms = message.timestamp()[1]
                    rows.append((origin["partition"], origin["offset"], number, at_ms))
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  its only name
                    at_end.add(message.partition())
                else:
                    raise RuntimeError(f"{topic} cannot be read: {error}")
                came_s = time.monotonic()
            if time.monotonic() - came_s > _SILENT_S:
                raise RuntimeError(f"{topic}: nothing after {len(rows)} events, and no end")
    finally:
        consumer.close()
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Outputs(*(np.ascontiguousarray(column) for column in columns.T))
