"""Exactly-once delivery without a broker: names, hopeless errors, and a start that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTransactionTimeout,
    KafkaError,
    ProducerFenced,
    TransactionalIdAuthorizationFailed,
)

import worker.exactly_once
from tests.polling import until
from worker.delivery import DeliveryConfig
from worker.errors import BrokerError, ConfigError
from worker.exactly_once import ExactlyOnceDelivery, _reason, transactional_id
from worker.kafka import KafkaConfig
from worker.lane_writer import LaneLost, LaneWriter, TransactionsConfig
from worker.lanes import Lane, Run
from worker.metrics import Metrics
from worker.outbox import OutputTopics


class Nobody:
    """An upstream that must not be asked for anything."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        raise AssertionError

    async def committed(self, partition: TopicPartition) -> int | None:
        raise AssertionError

    def settled(self, run: Run) -> None:
        raise AssertionError

    def lost(self, lane: Lane, after_s: float) -> None:
        raise AssertionError


def lane(topic: str = "products", partition: int = 3) -> Lane:
    return Lane(TopicPartition(topic, partition), epoch=1)


def delivery(servers: str = "localhost:1") -> ExactlyOnceDelivery:
    topics = OutputTopics(categories="c", attributes="a", dead_letters="d", num_partitions={})
    kafka = KafkaConfig(bootstrap_servers=servers)
    return ExactlyOnceDelivery(
        DeliveryConfig(), TransactionsConfig(), kafka, topics, Metrics(), group_id="shop"
    )


def test_a_transactional_id_names_group_topic_and_partition() -> None:
    assert transactional_id("shop", lane()) == "shop:products:3"
    assert transactional_id("a-b", lane("c")) != transactional_id("a", lane("b-c"))


def wrapped(cause: BaseException) -> KafkaError:
    """As aiokafka tells what it does not expect."""
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ProducerFenced(), "fenced"),
        (InvalidProducerEpoch(), "fenced"),
        (wrapped(ProducerFenced()), "fenced"),
        (TimeoutError(), "timed_out"),
        (LaneLost("moved", "by others"), "moved"),
        (wrapped(ValueError("code 90")), "failed"),
    ],
)
def test_a_loss_has_a_reason_and_may_pass(error: Exception, reason: str) -> None:
    delivery()._check_hopeful(error)

    assert _reason(error) == reason


def test_what_waiting_does_not_help_ends_the_worker_and_says_what_to_do() -> None:
    with pytest.raises(BrokerError, match="transactional ids that begin with shop:"):
        delivery()._check_hopeful(wrapped(TransactionalIdAuthorizationFailed("shop:products:3")))
    with pytest.raises(ConfigError, match=r"transaction\.max\.timeout\.ms"):
        delivery()._check_hopeful(InvalidTransactionTimeout())


async def test_a_start_that_hangs_is_told_and_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker.exactly_once, "_OPEN_S", 0.05)
    writers: list[asyncio.StreamWriter] = []
    before = asyncio.all_tasks()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tried = delivery(f"127.0.0.1:{port}")
        await tried.start(Nobody())
        opening = asyncio.create_task(tried.open_lane(lane()))
        await until(lambda: None if tried.not_ready() else "all is well", 30, "a start that hangs")
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        told = tried.not_ready()
        await tried.close_lanes([lane()])
        await tried.stop()
        for writer in writers:
            writer.close()
            await writer.wait_closed()

    assert "no transaction coordinator answers" in told[0]
    assert not tried.not_ready()
    assert asyncio.all_tasks() == before


class FencedAtTheEnd:
    """A writer whose last transaction fails, once it is told to finish."""

    writing_s = 0.0

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._finishing = asyncio.Event()

    def finish(self) -> None:
        self._finishing.set()

    async def run(self) -> None:
        await self._finishing.wait()
        raise ProducerFenced

    async def end(self) -> None:
        pass


async def test_what_fails_while_it_is_closed_is_no_trouble_of_this_worker_any_more() -> None:
    tried = delivery()
    await tried.start(Nobody())
    writer = cast(LaneWriter, FencedAtTheEnd(lane()))
    tried._writers[writer.lane] = writer
    tried._tasks[writer.lane] = asyncio.create_task(tried._write(writer))

    await tried.close_lanes([writer.lane])

    assert "ProducerFenced" in str(tried.last_error)
    assert not tried.not_ready()
    await tried.stop()
