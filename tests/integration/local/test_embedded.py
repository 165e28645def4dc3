from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer

from tests.services import TopicReader
from worker.local.embedded import NUM_PARTITIONS
from worker.local.errors import LocalServiceError
from worker.local.kafka import LocalKafka, start_kafka
from worker.local.kafka_ready import why_not_ready


@pytest.fixture(scope="module")
def embedded() -> Iterator[LocalKafka]:
    with start_kafka({}, source="embedded") as running:
        yield running


async def test_events_come_back_in_order_from_four_partitions(embedded: LocalKafka) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=embedded.bootstrap_servers, enable_idempotence=True
    ) as producer:
        for number in range(40):
            await producer.send("events", b"%d" % number, partition=number % NUM_PARTITIONS)
        await producer.flush()
        assert await producer.partitions_for("events") == set(range(NUM_PARTITIONS))
    records = await TopicReader(embedded.bootstrap_servers)("events", until=40)
    assert [int(r.value or b"") for r in records if r.partition == 1] == list(range(1, 40, 4))


def test_it_cannot_be_restarted(embedded: LocalKafka) -> None:
    with pytest.raises(LocalServiceError, match="keeps nothing"):
        embedded.start()


def test_it_is_the_last_resort_and_only_where_allowed() -> None:
    with start_kafka({"HOME": "/nonexistent", "PATH": ""}, allow_embedded=True) as kafka:
        assert kafka.source == "embedded"


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "end of input"])
def test_program_serves_until_told(end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "worker.local.embedded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin and program.stdout and program.stderr
        address = program.stdout.readline().strip()
        assert why_not_ready(address, 10.0) is None
        if end == "end of input":
            program.stdin.close()
        else:
            program.send_signal(signal.Signals[end])
        program.wait(20)
        assert "Traceback" not in program.stderr.read()
    assert why_not_ready(address) is not None
