"""Reads what the workers emit: from a time on, without a group, for people and for measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from worker.errors import BrokerError
from worker.hostile_records import fault_of
from worker.kafka import KafkaConfig
from worker.original_headers import ORIGINAL
from worker.partition_counts import no_broker, partition_counts
from worker.topics_config import TopicsConfig

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]

__all__ = [
    "AttributesOutput",
    "CategoriesOutput",
    "DeadLetterOutput",
    "Origin",
    "Output",
    "OutputReader",
    "UnreadableOutput",
    "parse_output",
]


class Origin(NamedTuple):
    """Where the input event lies that an output stems from."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class CategoriesOutput:
    """A ``categories`` event. ``timestamp_ms`` is Kafka's, of the append; ``path`` holds names."""

    origin: Origin
    timestamp_ms: int
    product_id: str
    locale: str
    release: str
    category_id: str
    score: float
    path: tuple[str, ...]
    status: str
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class AttributesOutput:
    """An ``attributes`` event; ``pairs`` are attribute and value, by name, in score order."""

    origin: Origin
    timestamp_ms: int
    product_id: str
    locale: str
    release: str
    pairs: tuple[tuple[str, str], ...]
    label_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeadLetterOutput:
    """A dead letter, without the event that it holds."""

    origin: Origin
    timestamp_ms: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class UnreadableOutput:
    """A record on an output topic that no worker wrote."""

    topic: str
    partition: int
    offset: int


Output: TypeAlias = CategoriesOutput | AttributesOutput | DeadLetterOutput | UnreadableOutput


def parse_output(record: Record, topics: TopicsConfig) -> Output:
    """An output event from its record; never raises, whatever the record holds."""
    if fault_of(record) is not None:
        return UnreadableOutput(record.topic, record.partition, record.offset)
    try:
        if record.topic == topics.dead_letters:
            return _dead_letter(record)
        return _result(record, orjson.loads(record.value or b""))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return UnreadableOutput(record.topic, record.partition, record.offset)


def _result(record: Record, event: Any) -> Output:
    place = event["input"]
    origin = Origin(str(place["topic"]), int(place["partition"]), int(place["offset"]))
    head = (
        origin,
        record.timestamp,
        str(event["product_id"]),
        str(event["locale"]),
        str(event["release"]),
    )
    if event["schema"] == "sortiment.categories.v1":
        category = event["category"]
        return CategoriesOutput(
            *head,
            str(category["id"]),
            float(category["score"]),
            tuple(str(node["name"]) for node in category["path"]),
            str(event["status"]),
            _agrees(event["claimed"]),
        )
    labels = event["attributes"]
    return AttributesOutput(
        *head,
        tuple((str(label["attribute"]), str(label["value"])) for label in labels),
        tuple(str(label["label_id"]) for label in labels),
    )


def _agrees(claimed: Any) -> bool | None:
    agrees = claimed["agrees"] if claimed else None
    if agrees is not None and type(agrees) is not bool:
        raise TypeError("agrees is true, false or null")
    return agrees


def _dead_letter(record: Record) -> DeadLetterOutput:
    headers = {
        name: value.decode(errors="replace")
        for name, value in record.headers
        if not name.startswith(ORIGINAL)
    }
    origin = Origin(
        headers["input-topic"], int(headers["input-partition"]), int(headers["input-offset"])
    )
    return DeadLetterOutput(origin, record.timestamp, headers["reason"], headers.get("detail", ""))


class OutputReader:
    """The three output topics, every partition, in one consumer without a group.

    Args:
        from_beginning: from the oldest events kept, else from those after ``start``.
    """

    def __init__(
        self, kafka: KafkaConfig, topics: TopicsConfig, *, from_beginning: bool = False
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._from_beginning = from_beginning
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect; everything appended after it returns will be read.

        Raises:
            BrokerError: no broker answers.
            ConfigError: output topics that are missing.
        """
        try:
            partitions = await self._partitions()
            self._consumer = AIOKafkaConsumer(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                # What a transaction has written and not committed may never come to be.
                isolation_level="read_committed",
                **self._kafka.client_kwargs(),
            )
            await self._consumer.start()
            self._consumer.assign(partitions)
            if not self._from_beginning:
                for partition, end in (await self._consumer.end_offsets(partitions)).items():
                    self._consumer.seek(partition, end)
        except KafkaError as error:
            raise no_broker(self._kafka, error) from error

    async def _partitions(self) -> list[TopicPartition]:
        wanted = (self._topics.categories, self._topics.attributes, self._topics.dead_letters)
        counts = await partition_counts(self._kafka, wanted)
        return [TopicPartition(topic, n) for topic in wanted for n in range(counts[topic])]

    async def read(self, timeout_s: float) -> list[Output]:
        """What has come since, at the latest after ``timeout_s``; empty when nothing has.

        Raises:
            BrokerError: Kafka failed.
        """
        assert self._consumer is not None
        try:
            by_partition = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        except KafkaError as error:
            raise BrokerError(f"reading outputs: {error!r}") from error
        return [
            parse_output(record, self._topics)
            for records in by_partition.values()
            for record in records
        ]

    async def close(self) -> None:
        """Let the connections go. May be called again."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    async def __aenter__(self) -> OutputReader:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
