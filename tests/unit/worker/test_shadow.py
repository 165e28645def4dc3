"""A shadow whose producer is cut off while it connects."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from worker.batching import BatchingConfig
from worker.kafka import KafkaConfig
from worker.metrics import Metrics
from worker.model_stage import ModelStage
from worker.shadow import Shadow, ShadowConfig


async def test_a_producer_that_is_cut_off_while_it_connects_is_not_used() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    shadow = Shadow(
        ShadowConfig(),
        KafkaConfig(bootstrap_servers=f"{host}:{port}"),
        BatchingConfig(),
        cast(ModelStage, None),
        lambda: True,
        Metrics(),
    )
    try:
        for _ in range(2):
            asked.clear()
            writing: asyncio.Task[Any] = asyncio.create_task(shadow._write([]))
            # Each connects by itself: nothing half started is left of the one before.
            await asyncio.wait_for(asked.wait(), 30)
            writing.cancel()
            await asyncio.wait({writing})
            assert writing.cancelled()
            assert shadow._producer is None
    finally:
        server.close()
