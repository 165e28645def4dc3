"""One producer and its sends, until the first failure; then it is ended for good.

After a failure nothing more goes through the same producer: a refused batch has used up sequence
numbers, and what waited behind it must not overtake it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

from worker.outbox import OutBatch
from worker.producers import start_producer

__all__ = ["Sender"]

_log = logging.getLogger(__name__)

_STOP_S = 5.0
_CANCEL_S = 0.1
_MAX_CANCELS = 50


class Sender:
    """Sends batches; those for one partition one after the other, in the order of the calls."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._order: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sends: set[asyncio.Task[None]] = set()
        self._has_failed = False

    @classmethod
    async def start(cls, options: dict[str, Any]) -> Sender:
        """A sender with a started producer.

        Raises:
            KafkaError: no broker takes it.
        """
        return cls(await start_producer(options))

    async def send(self, batches: Sequence[OutBatch]) -> None:
        """Send what is not sent; on return all of it is acknowledged and marked so.

        Raises:
            KafkaError: the first failure; this sender is of no more use then.
        """
        sends = [asyncio.create_task(self._send(batch)) for batch in batches if not batch.is_sent]
        self._sends.update(sends)
        for send in sends:
            send.add_done_callback(self._sends.discard)
        await asyncio.gather(*sends)

    async def _send(self, batch: OutBatch) -> None:
        async with self._order[batch.topic, batch.partition]:
            if self._has_failed:
                raise ProducerClosed
            try:
                acknowledgements = [
                    await self._producer.send_batch(builder, batch.topic, partition=batch.partition)
                    for builder in batch.builders(self._producer)
                ]
                await asyncio.gather(*acknowledgements)
            except BaseException:
                self._has_failed = True
                raise
            batch.is_sent = True

    async def end(self) -> None:
        """End the producer, whatever state it is in: nothing of it may write later."""
        self._has_failed = True
        sends = list(self._sends)
        for send in sends:
            send.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()
        except (TimeoutError, KafkaError) as error:
            _log.debug("the producer did not end by itself: %s", error)
            await self._abandon()

    async def _abandon(self) -> None:
        # A cut-off stop() leaves aiokafka's sender alive: it would write when the broker is back.
        producer = self._producer
        await producer.client.close()
        producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001
        task = producer._sender.sender_task  # noqa: SLF001
        for _ in range(_MAX_CANCELS):
            if task is None or task.done():
                return
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_S)
        _log.warning("a producer that was given up is still alive")
