"""Reads the control topic whole, and goes on reading.

Every worker reads everything with a consumer without a group, and commits nothing: a Faust global
table was seen to reach only the worker that owns the source partition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from worker.errors import BrokerError
from worker.kafka import KafkaConfig

__all__ = ["Latest", "follow"]

_log = logging.getLogger(__name__)

_RETRY_BROKER_S = 1.0
_POLL_MS = 1_000
_EMBEDDED_WAIT_S = 0.1

# The last record of each key, of those that are new.
Latest: TypeAlias = dict[bytes, "ConsumerRecord[bytes | None, bytes | None]"]


async def follow(kafka: KafkaConfig, topic: str, take: Callable[[Latest], None]) -> None:
    """Give ``take`` what is new, for ever; first all there is, when the topic's end is reached.

    A broker that is away is waited for, and the topic is then read whole again.

    Raises:
        BrokerError: the broker refuses.
    """
    while True:
        try:
            await _read(kafka, topic, take)
        except KafkaError as error:
            if not error.retriable:
                raise BrokerError(f"reading control topic {topic}: {error!r}") from error
            _log.warning("control topic %s: %r, trying again", topic, error)
            await asyncio.sleep(_RETRY_BROKER_S)


async def _read(kafka: KafkaConfig, topic: str, take: Callable[[Latest], None]) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **kafka.client_kwargs(),
    )
    try:
        await consumer.start()
        # The embedded broker makes the topic when it is first asked for.
        while not consumer.assignment():  # noqa: ASYNC110  aiokafka tells of it in no other way
            await asyncio.sleep(_EMBEDDED_WAIT_S)
        ends = await consumer.end_offsets(consumer.assignment())
        latest: Latest = {}
        behind = set(ends)
        is_first = True
        while True:
            behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}
            if not behind and (latest or is_first):
                is_first = False
                take(latest)
                latest = {}
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                latest.update({record.key: record for record in records if record.key})
    finally:
        await consumer.stop()
