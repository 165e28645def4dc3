"""Products through Kafka: sent, and their outputs read until every one has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from demo.services import Running
from demo.view import StreamView
from worker.event_sources import Listed
from worker.local.errors import LocalServiceError
from worker.output_reader import (
    AttributesOutput,
    CategoriesOutput,
    DeadLetterOutput,
    Origin,
    OutputReader,
)
from worker.pacing import PaceConfig, SentBatch, send_paced
from worker.product_lines import ProductEvent

__all__ = ["Pass", "stream"]

_POLL_S = 0.1
# A worker that shows nothing for so long is stuck: the largest batch takes seconds.
_STALL_S = 90.0


@dataclass(slots=True)
class Pass:
    """What one pass sent and what came of it, by the place of the input event.

    Attributes:
        sent_ms: when each product was sent (its record's CreateTime), epoch milliseconds.
        seconds: from the first product's sending until the last output was read.
    """

    sent_ms: dict[Origin, int] = field(default_factory=dict)
    categories: dict[Origin, CategoriesOutput] = field(default_factory=dict)
    attributes: dict[Origin, AttributesOutput] = field(default_factory=dict)
    dead_letters: dict[Origin, DeadLetterOutput] = field(default_factory=dict)
    seconds: float = 0.0

    def missing(self) -> int:
        """How many of the sent products have not all of their outputs yet."""
        both = self.categories.keys() & self.attributes.keys()
        return len(self.sent_ms.keys() - both - self.dead_letters.keys())

    @property
    def num_outputs(self) -> int:
        """All outputs so far."""
        return len(self.categories) + len(self.attributes) + len(self.dead_letters)


async def stream(
    running: Running,
    reader: OutputReader,
    events: Sequence[ProductEvent],
    rate_per_s: float | None,
    view: StreamView,
) -> Pass:
    """Send all events and wait for their outputs.

    Args:
        reader: started; stays open.
        rate_per_s: None: as fast as Kafka takes them.

    Raises:
        LocalServiceError: the worker ended or is stuck; with its log.
        BrokerError: Kafka failed.
    """
    result = Pass()
    topic = running.topics.input

    def on_sent(batch: SentBatch) -> None:
        for place in range(batch.first_offset, batch.first_offset + batch.events):
            result.sent_ms[Origin(topic, batch.partition, place)] = batch.timestamp_ms

    config = PaceConfig(topic=topic, rate_per_s=rate_per_s, group_id=running.group_id)
    started_s = last_news_s = time.monotonic()
    sending = asyncio.create_task(
        send_paced(running.kafka, config, Listed(events), on_sent=on_sent)
    )
    try:
        while not sending.done() or result.missing():
            outputs = await reader.read(_POLL_S)
            for output in outputs:
                if isinstance(output, CategoriesOutput):
                    result.categories[output.origin] = output
                elif isinstance(output, AttributesOutput):
                    result.attributes[output.origin] = output
                elif isinstance(output, DeadLetterOutput):
                    result.dead_letters[output.origin] = output
            view.update(outputs)
            now_s = time.monotonic()
            if outputs:
                last_news_s = now_s
            elif sending.done():
                sending.result()
                _check(running, result, now_s - last_news_s)
            else:
                running.check()
        result.seconds = last_news_s - started_s
        await sending
    finally:
        if not sending.done():
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return result


def _check(running: Running, result: Pass, silent_s: float) -> None:
    running.check()
    if silent_s > _STALL_S:
        raise LocalServiceError(
            f"no output for {silent_s:.0f} s, {result.missing():,} products are missing\n"
            f"{running.worker.child.log_tail()}"
        )
