"""Starting aiokafka producers, and ending them at once, whatever state the broker is in."""

from __future__ import annotations

import asyncio
import logging
from itertools import chain
from traceback import walk_tb
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import ProducerClosed

__all__ = ["end_at_once", "start_producer"]

_log = logging.getLogger(__name__)

_END_S = 2.0


async def start_producer(options: dict[str, Any]) -> AIOKafkaProducer:
    """A started producer; a transactional one has fenced its predecessor by then.

    Raises:
        KafkaError: no broker takes it.
    """
    producer = AIOKafkaProducer(**options)
    try:
        await producer.start()
    except BaseException as error:
        _close_first_connection(error)
        await end_at_once(producer)
        raise
    return producer


async def end_at_once(producer: AIOKafkaProducer) -> None:
    """End a producer without a word to the broker: what it had not sent is never sent.

    ``stop`` waits for acknowledgements, and cutting it off leaves tasks of aiokafka's alive that
    would connect again and write when the broker is back. A request that is already on its way may
    still be carried out. May be called again.
    """
    tasks = _tasks_of(producer)
    for task in tasks:
        task.cancel()
    for connection in producer.client._conns.values():  # noqa: SLF001
        if connection._writer is not None:  # noqa: SLF001
            # Closing in order would wait for a peer that reads nothing any more.
            connection._writer.transport.abort()  # noqa: SLF001
    if tasks:
        await asyncio.wait(tasks, timeout=_END_S)
    _take_note_of_errors(producer)
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001
    try:
        async with asyncio.timeout(_END_S):
            await producer.stop()
    except TimeoutError:
        _log.warning("a producer did not end within %g s", _END_S)


def _close_first_connection(error: BaseException) -> None:
    # aiokafka's client holds it in a local name only; cut off in between, nobody would close it.
    for frame, _ in walk_tb(error.__traceback__):
        connection = frame.f_locals.get("bootstrap_conn")
        if isinstance(connection, AIOKafkaConnection):
            connection.close()


def _tasks_of(producer: AIOKafkaProducer) -> list[asyncio.Task[Any]]:
    # aiokafka keeps hold of its main task only; requests under way are tasks of their own.
    sender = producer._sender  # noqa: SLF001
    found = []
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and frame.f_locals.get("self") is sender:
            found.append(task)
    return found


def _take_note_of_errors(producer: AIOKafkaProducer) -> None:
    # Nobody waits for these any more; asyncio would log each error that nobody has looked at.
    accumulator = producer._message_accumulator  # noqa: SLF001
    batches = [*accumulator._pending_batches, *chain(*accumulator._batches.values())]  # noqa: SLF001
    futures = [batch.future for batch in batches]
    futures += [batch._drain_waiter for batch in batches]  # noqa: SLF001
    manager = producer._txn_manager  # noqa: SLF001
    if manager is not None and manager._transaction_waiter is not None:  # noqa: SLF001
        futures.append(manager._transaction_waiter)  # noqa: SLF001
    for future in futures:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
