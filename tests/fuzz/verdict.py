"""What came out of the worker, and what is wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from worker.kafka import KafkaConfig
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

__all__ = ["Outputs", "Place"]

Place: TypeAlias = tuple[int, int]  # partition and offset of an input event

_SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
# Validating takes about 0.2 ms an event: enough of them to meet every kind of event.
_VALIDATED = 5_000
_SHOWN = 5


class Outputs:
    """Reads all three output topics whole and holds them against what was sent."""

    def __init__(self, servers: str, topics: TopicsConfig) -> None:
        self._servers = servers
        self._topics = topics
        self._schemas = {
            topic: _schema(name)
            for topic, name in (
                (topics.categories, "categories.v1"),
                (topics.attributes, "attributes.v1"),
                (topics.dead_letters, "dead-letter.v1"),
            )
        }
        self._categories: Counter[Place] = Counter()
        self._attributes: Counter[Place] = Counter()
        self._dead: Counter[Place] = Counter()
        self._dead_values: dict[Place, bytes | None] = {}
        self._invalid: list[str] = []
        self._num_read = 0
        self.reasons: dict[Place, str] = {}

    @property
    def num_results(self) -> int:
        """Input events with both outputs."""
        return len(self._categories.keys() & self._attributes.keys())

    @property
    def num_dead(self) -> int:
        """Input events with a dead letter."""
        return len(self._dead)

    async def read(
        self, sending: asyncio.Task[dict[Place, bytes | None]], no_progress_s: float
    ) -> bool:
        """Read until everything sent is accounted for; True if nothing came for so long."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        await consumer.start()
        try:
            facts = await ensure_topics(KafkaConfig(bootstrap_servers=self._servers), self._topics)
            partitions = [
                TopicPartition(topic, partition)
                for topic in self._schemas
                for partition in range(facts.partitions[topic])
            ]
            consumer.assign(partitions)
            while not (sending.done() and self._is_complete(len(sending.result()))):
                batches = await consumer.getmany(timeout_ms=int(no_progress_s * 1000))
                if not batches and sending.done():
                    return True
                for records in batches.values():
                    for record in records:
                        self._take(record)
        finally:
            await consumer.stop()
        return False

    def problems(self, sent: Mapping[Place, bytes | None]) -> list[str]:
        """Everything that is not as it must be."""
        results = self._categories.keys() & self._attributes.keys()
        halves = self._categories.keys() ^ self._attributes.keys()
        checks = {
            "lost": sent.keys() - results - self._dead.keys(),
            "only one of the two outputs": halves,
            "a result and a dead letter": results & self._dead.keys(),
            "from no event that was sent": (results | self._dead.keys()) - sent.keys(),
            "twice": {
                place
                for counts in (self._categories, self._attributes, self._dead)
                for place, count in counts.items()
                if count > 1
            },
            "dead letters with other bytes": {
                place for place, value in self._dead_values.items() if sent.get(place) != value
            },
        }
        found = [
            f"{len(places)} events: {what}: {sorted(places)[:_SHOWN]}"
            for what, places in checks.items()
            if places
        ]
        return found + self._invalid[:_SHOWN]

    def _is_complete(self, num_sent: int) -> bool:
        return self.num_results + self.num_dead >= num_sent

    def _take(self, record: ConsumerRecord[bytes | None, bytes | None]) -> None:
        self._num_read += 1
        event: dict[str, Any]
        if record.topic == self._topics.dead_letters:
            event = {name: value.decode() for name, value in record.headers}
            place = (int(event["input-partition"]), int(event["input-offset"]))
            self._dead[place] += 1
            self._dead_values[place] = record.value
            self.reasons[place] = event["reason"]
        else:
            assert record.value is not None
            event = orjson.loads(record.value)
            place = (event["input"]["partition"], event["input"]["offset"])
            is_category = record.topic == self._topics.categories
            (self._categories if is_category else self._attributes)[place] += 1
        if self._num_read <= _VALIDATED:
            error = next(self._schemas[record.topic].iter_errors(event), None)
            if error is not None:
                self._invalid.append(f"{record.topic} {place}: {error.json_path}: {error.message}")


def _schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((_SCHEMAS / f"{name}.json").read_text()))
