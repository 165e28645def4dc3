"""Producers are ended at once and whole, against brokers that refuse, hang or are not there."""

from __future__ import annotations

import asyncio
import gc
import struct

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionResponse_v0

from worker.producers import end_at_once, start_producer


async def test_a_producer_that_cannot_start_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()

    with pytest.raises(KafkaError):
        # Port 1 is reserved: nothing listens there.
        await start_producer({"bootstrap_servers": "127.0.0.1:1", "transactional_id": "t"})

    assert asyncio.all_tasks() == before


async def test_a_start_that_hangs_can_be_cut_off() -> None:
    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set_result(writer)

    connected: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        starting = asyncio.create_task(
            start_producer({"bootstrap_servers": f"127.0.0.1:{port}", "transactional_id": "t"})
        )
        writer = await connected
        starting.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await starting
        writer.close()
        await writer.wait_closed()


async def test_ending_twice_and_before_the_start_is_allowed() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", enable_idempotence=True)

    await end_at_once(producer)
    await end_at_once(producer)


async def test_a_start_that_is_cut_off_between_two_answers_leaves_no_connection_open() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(4), "big")
        _, _, correlation_id = struct.unpack_from(">hhi", await reader.readexactly(size))
        versions = ApiVersionResponse_v0(0, [(3, 0, 1)]).encode()
        writer.write(struct.pack(">ii", 4 + len(versions), correlation_id) + versions)
        await reader.readexactly(4)  # the question for metadata
        asked.set()
        closed.set_result(await reader.read() + await reader.read())
        writer.close()

    asked = asyncio.Event()
    closed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        starting = asyncio.create_task(
            start_producer({"bootstrap_servers": f"127.0.0.1:{port}", "transactional_id": "t"})
        )
        await asked.wait()
        starting.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await starting
            await closed
    del starting
    gc.collect()  # aiokafka complains of what is still open when it goes
