"""Outcomes to producer batches, a batch per output partition, and what to do with a refused one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from worker.events import bare_dead_letter, cut_dead_letter, dead_letter
from worker.lanes import DeadLetter, Outcome, Result, Run

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

__all__ = ["OutBatch", "OutputTopics", "outgoing", "split_refused"]

_Message: TypeAlias = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], Outcome]

_NO_HEADERS: list[tuple[str, bytes | None]] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTopics:
    """Where outcomes go, and how many partitions each topic has."""

    categories: str
    attributes: str
    dead_letters: str
    num_partitions: dict[str, int]


@dataclass(slots=True, eq=False)
class OutBatch:
    """Messages for one output partition, in order.

    Attributes:
        messages: key, value, headers and the outcome they stem from.
        is_sent: the broker has acknowledged all of them.
    """

    topic: str
    partition: int
    messages: list[_Message]
    is_sent: bool = False

    def builders(self, producer: AIOKafkaProducer) -> Iterable[BatchBuilder]:
        """The messages as batches of at most the producer's size, each given when it is full."""
        timestamp = int(time.time() * 1000)
        builder = producer.create_batch()
        for key, value, headers, _ in self.messages:
            if builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                yield builder
                builder = producer.create_batch()
                builder.append(timestamp=timestamp, key=key, value=value, headers=headers)
        yield builder


def outgoing(outcomes: Iterable[Outcome], topics: OutputTopics) -> list[OutBatch]:
    """Batches of all outputs of the outcomes; within each, the outcomes' order."""
    categories: defaultdict[int, list[_Message]] = defaultdict(list)
    attributes: defaultdict[int, list[_Message]] = defaultdict(list)
    dead: defaultdict[int, list[_Message]] = defaultdict(list)
    num_categories = topics.num_partitions[topics.categories]
    num_attributes = topics.num_partitions[topics.attributes]
    num_dead = topics.num_partitions[topics.dead_letters]
    for outcome in outcomes:
        if isinstance(outcome, Result):
            key, key_hash = outcome.key, outcome.key_hash
            if outcome.categories is not None:
                categories[key_hash % num_categories].append(
                    (key, outcome.categories, _NO_HEADERS, outcome)
                )
            if outcome.attributes is not None:
                attributes[key_hash % num_attributes].append(
                    (key, outcome.attributes, _NO_HEADERS, outcome)
                )
        else:
            dead[outcome.key_hash % num_dead].append(
                (outcome.key, outcome.value, outcome.headers, outcome)
            )
    return [
        OutBatch(topic, partition, messages)
        for topic, by_partition in (
            (topics.categories, categories),
            (topics.attributes, attributes),
            (topics.dead_letters, dead),
        )
        for partition, messages in by_partition.items()
    ]


def split_refused(batch: OutBatch, topics: OutputTopics, runs: Iterable[Run]) -> list[OutBatch]:
    """What to send instead of a batch that the broker refused for its size.

    Two halves; or, where one message is refused: a dead letter loses its event's headers, then half
    of what it was (again and again, if it must be), and an output becomes a dead letter, so that
    nothing is lost.

    Args:
        runs: those that the messages stem from; there the letter takes the result's place.

    Returns:
        Batches; none where the other output of the product was refused before, and is a letter.
    """
    messages = batch.messages
    if len(messages) > 1:
        middle = len(messages) // 2
        return [
            OutBatch(batch.topic, batch.partition, messages[:middle]),
            OutBatch(batch.topic, batch.partition, messages[middle:]),
        ]
    key, value, _, outcome = messages[0]
    size = len(key or b"") + len(value or b"")
    if isinstance(outcome, DeadLetter):
        letter = bare_dead_letter(outcome) or cut_dead_letter(outcome, size // 2)
        message = (letter.key, letter.value, letter.headers, letter)
        return [OutBatch(batch.topic, batch.partition, [message])]
    letter = dead_letter(
        outcome.record,
        "output_too_large",
        f"topic {batch.topic} refused an output of {size} bytes; raise its max.message.bytes or "
        "send a shorter key",
        outcome.release,
    )
    return outgoing([letter], topics) if _took_its_place(letter, outcome, runs) else []


def _took_its_place(letter: DeadLetter, result: Result, runs: Iterable[Run]) -> bool:
    for run in runs:
        for place, outcome in enumerate(run.outcomes):
            if outcome is result:
                run.outcomes[place] = letter
                return True
    return False
