"""Which error of a transaction is told, and in what order its batches go."""

from __future__ import annotations

from typing import cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from tests.factories import record
from worker.lanes import Result
from worker.outbox import OutBatch
from worker.transactor import RefusedError, Transactor, _raise_first


def batch(topic: str, partition: int, num: int) -> OutBatch:
    result = Result(record(), b"k", 0, "r/1", b"", None)
    return OutBatch(topic, partition, [(b"k", b"x" * 300, [], result) for _ in range(num)])


class Producer:
    """Only makes batches, of three messages each: no connection."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(1_000, 0, is_transactional=True)


def test_a_refusal_is_told_before_what_followed_from_it() -> None:
    first, second, third = batch("c", 0, 1), batch("c", 0, 1), batch("a", 0, 1)
    errors = [MessageSizeTooLargeError(), OutOfOrderSequenceNumber(), RecordListTooLargeError()]

    with pytest.raises(RefusedError, match=r"c\[0\]") as refused:
        _raise_first([first, second, third], [*errors, None])

    assert refused.value.batches == [first, third]


def test_without_a_refusal_the_first_error_is_told_the_offsets_included() -> None:
    with pytest.raises(ProducerFenced):
        _raise_first([batch("c", 0, 1)], [None, ProducerFenced()])

    _raise_first([batch("c", 0, 1)], [None, None])


def test_every_partition_gets_its_first_part_before_any_gets_its_second() -> None:
    transactor = Transactor(cast(AIOKafkaProducer, Producer()), "group")
    large, small, more = batch("c", 0, 7), batch("a", 1, 2), batch("c", 0, 1)

    rounds = transactor._in_rounds([large, small, more])

    assert [(each, builder.record_count()) for each, builder in rounds] == [
        (large, 3), (small, 2), (large, 3), (large, 1), (more, 1),
    ]  # fmt: skip
