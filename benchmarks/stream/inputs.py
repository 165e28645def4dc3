"""Input topics, filled before anything is measured, and whether all of it came out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from worker.errors import EventError
from worker.events import parse_event
from worker.product_lines import ProductEvent, read_events

__all__ = ["PARTITIONS", "Input", "Topics", "load_events"]

PARTITIONS = 12
_ADMIN_S = 60.0
_CHUNK = 10_000
# The client waits for a whole chunk, or so long.
_WAIT_S = 0.2
# librdkafka reports every closed connection; failures come out of the calls.
_QUIET: dict[str, str | int | float | bool] = {"log_level": 2}
# A group's coordinator is settled some moments after the group appears.
_COORDINATOR_MOVES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_SPLITS = ("test", "valid", "train")


def load_events(data: Path, count: int) -> list[ProductEvent]:
    """``count`` events of a data set that are products, test first; again from the start if short.

    Raises:
        FileNotFoundError: the directory holds no products.
    """
    files = [data / f"{split}.jsonl.gz" for split in _SPLITS]
    files = [file for file in files if file.exists()]
    found = list(islice(filter(_is_product, read_events(files)), count))
    if not found:
        raise FileNotFoundError(f"no products in {data}: wanted test.jsonl.gz or train.jsonl.gz")
    return list(islice(cycle(found), count))


def _is_product(event: ProductEvent) -> bool:
    try:
        parse_event(event.value)
    except EventError:
        return False
    return True


class Input:
    """A topic of 12 partitions that is filled in steps."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.topic = topic
        self.count = 0
        self._bootstrap_servers = bootstrap_servers

    def fill(self, events: Sequence[ProductEvent]) -> None:
        """Add events, spread by key as every producer would.

        Raises:
            RuntimeError: the broker refused one.
        """
        refused: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
            }
            | _QUIET
        )
        for key, value in events:
            producer.produce(self.topic, value, key, on_delivery=on_delivery)
            producer.poll(0)
        producer.flush()
        if refused:
            raise RuntimeError(f"the broker refused {len(refused)} events, first: {refused[0]}")
        self.count += len(events)

    def committed(self, consumer: Consumer) -> int:
        """How many of the events the consumer's group has committed."""
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        while True:
            try:
                known = consumer.committed(partitions, timeout=_ADMIN_S)
            except KafkaException as error:
                if error.args[0].code() not in _COORDINATOR_MOVES:
                    raise
            else:
                return sum(max(partition.offset, 0) for partition in known)

    def watcher(self, group: str) -> Consumer:
        """A client that asks for a group's offsets without joining it."""
        # Else it waits for a moment without an open transaction, which may never come.
        isolation = {"isolation.level": "read_uncommitted"}
        servers = {"bootstrap.servers": self._bootstrap_servers}
        return Consumer(servers | {"group.id": group} | isolation | _QUIET)


class Topics:
    """Topics of one benchmark run, removed at the end."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin = AdminClient(_QUIET | {"bootstrap.servers": bootstrap_servers})

    def input(self, name: str) -> Input:
        """A new, empty input topic."""
        (topic,) = self.make([name])
        return Input(self._bootstrap_servers, topic)

    def make(self, names: Iterable[str]) -> list[str]:
        """New topics of 12 partitions; their unique names."""
        unique = [f"{name}-{uuid.uuid4().hex[:8]}" for name in names]
        new = [NewTopic(topic, PARTITIONS, replication_factor=1) for topic in unique]
        for created in self._admin.create_topics(new, operation_timeout=_ADMIN_S).values():
            created.result(_ADMIN_S)
        return unique

    def remove(self, topics: Sequence[str]) -> None:
        """Remove those of the topics that are there, and their data."""
        present = self._admin.list_topics(timeout=_ADMIN_S).topics
        gone = [topic for topic in topics if topic in present]
        if gone:
            for removed in self._admin.delete_topics(gone).values():
                removed.result(_ADMIN_S)

    def count(self, topic: str) -> int:
        """Events in a topic that a reader of committed ones sees: offsets count markers as well.

        Raises:
            RuntimeError: the topic cannot be read to its end.
        """
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": "benchmark-count",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
            | _QUIET
        )
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            count, at_end = 0, set()
            deadline_s = time.monotonic() + _ADMIN_S
            while len(at_end) < PARTITIONS:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{topic} cannot be read to its end: {count} events so far")
                for message in consumer.consume(_CHUNK, _WAIT_S):
                    error = message.error()
                    if error is None:
                        count += 1
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  its only name
                        at_end.add(message.partition())
                    else:
                        raise RuntimeError(f"{topic} cannot be read: {error}")
            return count
        finally:
            consumer.close()
