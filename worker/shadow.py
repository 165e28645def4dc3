"""A second release scores a share of the products again, when the model has nothing else to do.

Nothing here holds a product up or fails one: what there is no time for is dropped and counted, and
so is what the shadow release cannot answer. Its events are written as well as may be, outside of
any transaction: after a crash some are missing or come again, under the same event id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from worker.batching import BatchingConfig
from worker.comparison import Comparison, compare
from worker.events import Window
from worker.inference import Batch
from worker.kafka import KafkaConfig
from worker.lanes import Result
from worker.metrics import Metrics
from worker.model_stage import ModelStage
from worker.preparing import prepare_window
from worker.rollout import Sample
from worker.serving import Scored, Serving

__all__ = ["Shadow", "ShadowConfig"]

_log = logging.getLogger(__name__)

# One shadow batch may be in a live batch's way: a small one.
_MAX_BATCH = 64
_RETRY_S = 5.0
_CLOSE_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowConfig:
    """Where comparisons go.

    Attributes:
        topic: of the comparisons.
        max_waiting: products that may wait for the model; beyond it the newest are dropped.
    """

    topic: str = "product-shadow"
    max_waiting: int = 2_048


class Shadow:
    """The shadow release and the products that wait for it."""

    def __init__(
        self,
        config: ShadowConfig,
        kafka: KafkaConfig,
        batching: BatchingConfig,
        model: ModelStage,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._kafka = kafka
        self._batching = replace(
            batching, max_batch_products=min(_MAX_BATCH, batching.max_batch_products)
        )
        self._model = model
        self._metrics = metrics
        self._serving: Serving | None = None
        self._sample = Sample("", 0.0)
        self._waiting: deque[tuple[Window, list[Result]]] = deque()
        self._num_waiting = 0
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")
        self._producer: AIOKafkaProducer | None = None
        self._last_error: str | None = None

    def serve(self, serving: Serving | None, share: float) -> None:
        """Let a release be the shadow of a share of the products; None: no shadow."""
        self._serving = serving
        self._sample = Sample("shadow", share if serving is not None else 0.0)
        self._waiting.clear()
        self._num_waiting = 0
        self._metrics.shadow_share.set(self._sample.share)

    def offer(self, batch: Batch, results: Sequence[Result]) -> None:
        """Products that the active release, or a canary, has answered."""
        if self._serving is None or batch.serving is self._serving:
            return
        rows = [row for row, record in enumerate(batch.records) if self._sample.has(record)]
        if not rows:
            return
        if self._num_waiting + len(rows) > self._config.max_waiting:
            self._metrics.shadow_products.labels("dropped").inc(len(rows))
            return
        self._waiting.append((batch.window().part(rows), [results[row] for row in rows]))
        self._num_waiting += len(rows)
        self._news.set()

    def status(self) -> dict[str, Any] | None:
        """The shadow and how it does; None where there is none."""
        if self._serving is None:
            return None
        return {
            "release": self._serving.release.id,
            "share": self._sample.share,
            "waiting": self._num_waiting,
            "last_error": self._last_error,
        }

    async def run(self) -> None:
        """Score what waits, for ever."""
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            window, results = self._waiting.popleft()
            self._num_waiting -= len(window)
            serving = self._serving
            if serving is not None:
                await self._score(serving, window, results)

    async def stop(self) -> None:
        """Give thread and producer up."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._close_producer()

    async def _score(self, serving: Serving, window: Window, results: list[Result]) -> None:
        loop = asyncio.get_running_loop()
        active = {_place(each): each for each in results}
        try:
            preparation = await loop.run_in_executor(
                self._thread, prepare_window, serving, window, self._batching
            )
            self._metrics.shadow_products.labels("failed").inc(len(preparation.dead))
            for batch in preparation.batches:
                scored = await self._model.run_beside(batch)
                compared = await loop.run_in_executor(self._thread, _compared, scored, active)
                await self._write(compared)
        except Exception as error:  # noqa: BLE001  a shadow may fail in any way, and nothing else by it
            self._metrics.shadow_products.labels("failed").inc(len(window))
            self._note(f"{type(error).__name__}: {error}")

    async def _write(self, compared: list[tuple[Result, Comparison]]) -> None:
        for _, each in compared:
            self._count(each)
        try:
            producer = self._producer or await self._start_producer()
            sent = [
                await producer.send(self._config.topic, each.event, key=result.key)
                for result, each in compared
            ]
            await asyncio.gather(*sent)
        except KafkaError as error:
            self._metrics.shadow_products.labels("unsent").inc(len(compared))
            self._note(f"writing to topic {self._config.topic}: {error!r}")
            await self._close_producer()
            # Whatever waits meanwhile is dropped beyond its bound.
            await asyncio.sleep(_RETRY_S)
        else:
            self._metrics.shadow_products.labels("compared").inc(len(compared))

    def _count(self, compared: Comparison) -> None:
        if compared.same_category is not None:
            outcome = "same" if compared.same_category else "other"
            self._metrics.shadow_categories.labels(outcome).inc()
        for where, number in (
            ("both", compared.num_both),
            ("active_only", compared.num_active_only),
            ("shadow_only", compared.num_shadow_only),
        ):
            self._metrics.shadow_labels.labels(where).inc(number or 0)

    async def _start_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            client_id="sortiment-shadow", compression_type="snappy", **self._kafka.client_kwargs()
        )
        self._producer = producer
        await producer.start()
        return producer

    async def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), _CLOSE_S)
        except (TimeoutError, KafkaError):
            await producer.client.close()

    def _note(self, what: str) -> None:
        if what != self._last_error:
            _log.warning("shadow: %s", what)
        self._last_error = what


def _compared(
    scored: Scored, active: dict[tuple[str, int, int], Result]
) -> list[tuple[Result, Comparison]]:
    results = scored.assemble()
    pairs = [(active[_place(each)], each) for each in results]
    return [(ours, compare(ours, theirs)) for ours, theirs in pairs]


def _place(result: Result) -> tuple[str, int, int]:
    return result.record.topic, result.record.partition, result.record.offset
