"""A second release scores a share of the products again, when the model has nothing else to do.

No product waits for it longer than for one small batch, and none fails by it: what there is no time
for is dropped and counted, and so is what the shadow release cannot answer. Its events are written
as well as may be, outside of any transaction: after a crash some are missing or come again, under
the same event id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from worker.batching import BatchingConfig
from worker.comparison import Comparison, compare
from worker.events import Window
from worker.inference import Batch
from worker.kafka import KafkaConfig
from worker.lanes import Result, event_bytes
from worker.metrics import Metrics
from worker.model_stage import ModelStage
from worker.preparing import prepare_window
from worker.producers import start_producer
from worker.rollout import Sample
from worker.serving import Scored, Serving

__all__ = ["Shadow", "ShadowConfig"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
# Topic, partition and offset of an input event.
_Place: TypeAlias = tuple[str, int, int]

# One shadow batch may be in a live batch's way: a small one.
_MAX_BATCH = 64
_RETRY_S = 5.0
_CLOSE_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowConfig:
    """Where comparisons go.

    Attributes:
        topic: of the comparisons.
        max_waiting, max_waiting_bytes: products that may wait for the model, and the size of their
            events; beyond it the newest are dropped.
    """

    topic: str = "product-shadow"
    max_waiting: int = 2_048
    max_waiting_bytes: int = 32 * 1024 * 1024


class Shadow:
    """The shadow release and the products that wait for it.

    Args:
        is_allowed: asked before each batch; where it says no, the batch is dropped.
    """

    def __init__(
        self,
        config: ShadowConfig,
        kafka: KafkaConfig,
        batching: BatchingConfig,
        model: ModelStage,
        is_allowed: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._kafka = kafka
        self._batching = replace(
            batching, max_batch_products=min(_MAX_BATCH, batching.max_batch_products)
        )
        self._model = model
        self._is_allowed = is_allowed
        self._metrics = metrics
        self._serving: Serving | None = None
        self._sample = Sample("", 0.0)
        self._waiting: deque[tuple[Window, list[Result]]] = deque()
        self._num_waiting = 0
        self._num_waiting_bytes = 0
        self._news = asyncio.Event()
        self._scoring: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")
        self._producer: AIOKafkaProducer | None = None
        self._last_error: str | None = None

    def serve(self, serving: Serving | None, share: float) -> None:
        """Let a release be the shadow of a share of the products; None: no shadow."""
        self._serving = serving
        self._sample = Sample("shadow", share if serving is not None else 0.0)
        self._waiting.clear()
        self._num_waiting = self._num_waiting_bytes = 0
        if self._scoring is not None:
            self._scoring.cancel()  # it may wait for long, and would hold the release before
        self._metrics.shadow_share.set(self._sample.share)

    def offer(self, batch: Batch, results: Sequence[Result]) -> None:
        """Products that the active release, or a canary, has answered."""
        if self._serving is None or batch.serving is self._serving:
            return
        rows = [
            row
            for row, (record, lane) in enumerate(zip(batch.records, batch.lanes, strict=True))
            if self._sample.has(record) and record.offset not in lane.deaths
        ]
        if not rows:
            return
        window = batch.window().part(rows)
        num_bytes = _num_bytes(window)
        if (
            self._num_waiting + len(rows) > self._config.max_waiting
            or self._num_waiting_bytes + num_bytes > self._config.max_waiting_bytes
        ):
            self._metrics.shadow_products.labels("dropped").inc(len(rows))
            return
        self._waiting.append((window, [results[row] for row in rows]))
        self._num_waiting += len(rows)
        self._num_waiting_bytes += num_bytes
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
        try:
            while True:
                while not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                self._scoring = asyncio.create_task(self._score_next(), name="shadow: score")
                await asyncio.wait({self._scoring})
                self._scoring = None
        finally:
            if self._scoring is not None:
                self._scoring.cancel()

    async def stop(self) -> None:
        """Give thread and producer up."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._close_producer()

    async def _score_next(self) -> None:
        window, results = self._waiting.popleft()
        self._num_waiting -= len(window)
        self._num_waiting_bytes -= _num_bytes(window)
        serving = self._serving
        if serving is None:
            return
        active = {_place(each): each for each in results}
        prepare = partial(prepare_window, serving, window, self._batching)
        try:
            preparation = await self._on_thread(prepare)
        except Exception as error:  # noqa: BLE001  a shadow may fail in any way
            self._failed(len(window), error)
            return
        self._metrics.shadow_products.labels("failed").inc(len(preparation.dead))
        for batch in preparation.batches:
            await self._score(batch, active)

    async def _score(self, batch: Batch, active: dict[_Place, Result]) -> None:
        try:
            scored = await self._model.run_beside(batch, self._is_allowed)
            if scored is None:
                self._metrics.shadow_products.labels("dropped").inc(len(batch))
                return
            compared = await self._on_thread(partial(_compared, scored, active))
        except Exception as error:  # noqa: BLE001  a shadow may fail in any way
            self._failed(len(batch), error)
        else:
            await self._write(compared)

    async def _on_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _failed(self, num_products: int, error: Exception) -> None:
        self._metrics.shadow_products.labels("failed").inc(num_products)
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
        options = {"client_id": "sortiment-shadow", "compression_type": "snappy"}
        # Kept when it is started: another shadow may be announced meanwhile, and cut this off.
        self._producer = await start_producer(options | self._kafka.client_kwargs())
        return self._producer

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


def _compared(scored: Scored, active: dict[_Place, Result]) -> list[tuple[Result, Comparison]]:
    pairs = [(active[_place(each)], each) for each in scored.assemble()]
    return [(ours, compare(ours, theirs)) for ours, theirs in pairs]


def _place(result: Result) -> _Place:
    return result.record.topic, result.record.partition, result.record.offset


def _num_bytes(window: Window) -> int:
    return sum(map(event_bytes, window.records))
