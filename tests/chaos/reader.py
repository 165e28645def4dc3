"""Reads the output topics as a consumer of committed events does, without a group."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tests.chaos.verdict import Kind, Ledger, Output
from tests.streams import Place
from worker.topics_config import TopicsConfig

__all__ = ["Follower", "read_to_end"]

_TAKE = 1_000
_TAKE_S = 0.2
_READ_DEADLINE_S = 120.0
# What the ids of each kind of event begin with.
_EVENT_IDS: Mapping[Kind, str] = {
    "categories": "categories",
    "attributes": "attributes",
    "dead_letters": "dead-letter",
}


class Follower:
    """Reads on a thread, from the beginning until everything sent is there or nothing comes.

    librdkafka's consumer, not the worker's own client: what one client takes for committed, another
    must too.
    """

    def __init__(self, servers: str, topics: TopicsConfig) -> None:
        self.ledger = Ledger()
        self._outputs = _Outputs(servers, topics)
        self._sent: Mapping[Place, bool] | None = None
        self._silence_s = 0.0
        self._is_aborted = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def finish(self, sent: Mapping[Place, bool], silence_s: float) -> None:
        """Wait until all of ``sent`` has come out, or nothing has come for ``silence_s``.

        Raises:
            KafkaException: reading failed.
        """
        self._silence_s = silence_s
        self._sent = sent
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_aborted = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001  raised by ``finish``
            self._failure = error
        finally:
            self._outputs.close()

    def _follow(self) -> None:
        came_s = time.monotonic()
        while not self._is_aborted:
            outputs = self._outputs.take()
            for output in outputs:
                self.ledger.take(output)
            if outputs:
                came_s = time.monotonic()
            sent = self._sent
            if sent is None:
                came_s = time.monotonic()
            elif not self.ledger.lacks(sent) or time.monotonic() - came_s > self._silence_s:
                return


def read_to_end(servers: str, topics: TopicsConfig) -> Ledger:
    """Everything that a reader who comes afterwards is given.

    Raises:
        KafkaException: reading failed.
        TimeoutError: the end of some partition was not reached in time.
    """
    ledger = Ledger()
    outputs = _Outputs(servers, topics)
    deadline = time.monotonic() + _READ_DEADLINE_S
    try:
        while not outputs.is_at_end:
            for output in outputs.take():
                ledger.take(output)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the outputs were not read whole in {_READ_DEADLINE_S:g} s")
    finally:
        outputs.close()
    return ledger


class _Outputs:
    """All partitions of the three output topics, from the beginning."""

    def __init__(self, servers: str, topics: TopicsConfig) -> None:
        self._input = topics.input
        self._kinds: dict[str, Kind] = {
            topics.categories: "categories",
            topics.attributes: "attributes",
            topics.dead_letters: "dead_letters",
        }
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": f"reader-of-{topics.input}",  # asked for, never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # To begin again would look like doubles.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "reconnect.backoff.max.ms": 1_000,
                "error_cb": lambda _: None,  # brokers go and come
                "log_level": 2,
            }
        )
        self._behind = {
            (topic, partition) for topic in self._kinds for partition in range(topics.partitions)
        }
        self._consumer.assign(
            [TopicPartition(*source, OFFSET_BEGINNING) for source in sorted(self._behind)]
        )

    @property
    def is_at_end(self) -> bool:
        """Whether every partition has been read to its end once."""
        return not self._behind

    def take(self) -> list[Output]:
        """What has come, after a moment's wait."""
        taken = []
        for message in self._consumer.consume(_TAKE, _TAKE_S):
            error = message.error()
            if error is None:
                taken.append(self._decode(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._behind.discard((message.topic(), message.partition()))
            elif error.code() == KafkaError._AUTO_OFFSET_RESET or not error.retriable():
                raise KafkaException(error)
        return taken

    def close(self) -> None:
        self._consumer.close()

    def _decode(self, message: Any) -> Output:
        kind = self._kinds[message.topic()]
        if kind == "dead_letters":
            headers = dict(message.headers())
            topic = headers["input-topic"].decode()
            place = (int(headers["input-partition"]), int(headers["input-offset"]))
            event_id = headers["event-id"].decode()
        else:
            event = orjson.loads(message.value())
            origin = event["input"]
            topic, place = origin["topic"], (origin["partition"], origin["offset"])
            event_id = event["event_id"]
        if topic != self._input or event_id != f"{_EVENT_IDS[kind]}:{topic}:{place[0]}:{place[1]}":
            raise AssertionError(f"{message.topic()}: event {event_id} of {topic} {place}")
        return Output(kind, place, message.key(), (message.partition(), message.offset()))
