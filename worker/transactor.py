"""One transactional producer: outputs and the offset behind them, in one transaction each time.

It never aborts by itself: aiokafka's abort first waits for the batches that it is to undo, and a
producer with a refused batch has a hole in its sequence numbers. After any error the producer is
ended; the next one of the same transactional id fences it, and the broker aborts what it left open.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from worker.outbox import OutBatch
from worker.producers import end_at_once, start_producer

__all__ = ["TOO_LARGE", "RefusedError", "Transactor"]

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class RefusedError(KafkaError):  # type: ignore[misc]
    """Topics refused batches for their size; the transaction cannot be committed.

    Args:
        batches: those that were refused.
    """

    def __init__(self, batches: Sequence[OutBatch], error: BaseException) -> None:
        super().__init__(f"{batches[0].topic}[{batches[0].partition}]: {error!r}")
        self.batches = batches


class Transactor:
    """Writes transactions, one after the other, until the first error."""

    def __init__(self, producer: AIOKafkaProducer, group_id: str) -> None:
        self._producer = producer
        self._group_id = group_id

    @classmethod
    async def start(cls, options: dict[str, Any], group_id: str) -> Transactor:
        """Begin, once the predecessor of the same id is fenced and its transaction settled.

        Raises:
            KafkaError: the broker does not let it.
        """
        return cls(await start_producer(options), group_id)

    async def write(
        self, batches: Sequence[OutBatch], partition: TopicPartition, next_offset: int
    ) -> None:
        """Write batches and commit, in the same transaction, the input's offset.

        Batches for one output partition are written in their order.

        Raises:
            RefusedError: a topic takes no batch of such a size.
            KafkaError: it did not go through, or nobody knows whether it did; end this transactor.
        """
        rounds = self._in_rounds(batches)
        self._check_alive()
        try:
            await self._producer.begin_transaction()
            await self._send(rounds, {partition: OffsetAndMetadata(next_offset, "")})
            self._check_alive()
            await self._producer.commit_transaction()
        except IllegalOperation:
            self._check_alive()  # what it says is only that an error has ended the transaction
            raise

    async def end(self) -> None:
        """End at once; an open transaction is left to the next of this id, or to its time-out."""
        await end_at_once(self._producer)

    def _in_rounds(self, batches: Sequence[OutBatch]) -> list[tuple[OutBatch, BatchBuilder]]:
        """Every partition's first, then every partition's second: aiokafka has room for one each.

        So all partitions are added to the transaction in one request.
        """
        queues: defaultdict[tuple[str, int], list[tuple[OutBatch, BatchBuilder]]]
        queues = defaultdict(list)
        for batch in batches:
            queues[batch.topic, batch.partition] += [
                (batch, builder) for builder in batch.builders(self._producer)
            ]
        return [each for turn in zip_longest(*queues.values()) for each in turn if each is not None]

    async def _send(
        self,
        rounds: Sequence[tuple[OutBatch, BatchBuilder]],
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        producer = self._producer
        acknowledged: list[asyncio.Future[Any]] = []
        try:
            for batch, builder in rounds:
                acknowledged.append(
                    await producer.send_batch(builder, batch.topic, partition=batch.partition)
                )
            # Behind the batches, for the partitions to be added first, and beside their writing.
            adding = asyncio.ensure_future(
                producer.send_offsets_to_transaction(offsets, self._group_id)
            )
            errors = [
                result if isinstance(result, BaseException) else None
                for result in await asyncio.gather(*acknowledged, adding, return_exceptions=True)
            ]
        except BaseException:
            for future in acknowledged:
                future.cancel()
            raise
        _raise_first([batch for batch, _ in rounds], errors)

    def _check_alive(self) -> None:
        # aiokafka's own check is an assertion on its state.
        task = self._producer._sender.sender_task  # noqa: SLF001
        if task.done():
            died = None if task.cancelled() else task.exception()
            raise ProducerClosed if died is None else died
        end = self._producer._txn_manager._transaction_waiter  # noqa: SLF001
        if end is not None and end.done() and (error := end.exception()) is not None:
            raise error


def _raise_first(batches: Sequence[OutBatch], errors: Sequence[BaseException | None]) -> None:
    """Raise the most telling of the errors of the batches, and last of the offset, if any."""
    refused = {
        id(batch): (batch, error)
        for batch, error in zip(batches, errors, strict=False)
        if isinstance(error, TOO_LARGE)
    }
    if refused:
        first = next(error for _, error in refused.values())
        raise RefusedError([batch for batch, _ in refused.values()], first) from first
    for error in errors:
        if error is not None:
            raise error
