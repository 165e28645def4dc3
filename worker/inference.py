"""The model thread: the only thread that touches the device."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.prepare import Prepared
from models.product import Product
from worker.events import Window
from worker.lanes import Lane
from worker.metrics import Metrics
from worker.serving import Scored, Serving

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["Batch", "ModelThread"]


@dataclass(slots=True)
class Batch:
    """Products of any lanes, prepared for one serving.

    Attributes:
        serving: what it was prepared for and runs on.
        records, products, lanes, slots: a row a product.
        prepared: the model's arrays, a row a product.
    """

    serving: Serving
    records: list[ConsumerRecord[bytes | None, bytes | None]]
    products: list[Product]
    lanes: list[Lane]
    slots: list[int]
    prepared: Prepared

    def __len__(self) -> int:
        return len(self.records)

    def window(self) -> Window:
        """Its events, to be prepared anew."""
        return Window(self.records, self.lanes, self.slots, time.monotonic())

    def halves(self) -> tuple[Batch, Batch]:
        """The batch cut in two; for batches of two and more."""
        middle = len(self) // 2
        return self.part(0, middle), self.part(middle, len(self))

    def part(self, start: int, end: int) -> Batch:
        """The rows from ``start`` to before ``end``."""
        cut = slice(start, end)
        return Batch(
            self.serving,
            self.records[cut],
            self.products[cut],
            self.lanes[cut],
            self.slots[cut],
            self.prepared.take(np.arange(start, end, dtype=np.int64)),
        )


class ModelThread:
    """Runs batches one after the other on a thread of its own."""

    def __init__(self, metrics: Metrics) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._seconds = metrics.stage_seconds.labels("model")
        self.is_busy = False

    def submit(self, batch: Batch) -> asyncio.Future[Scored]:
        """Queue a batch; what the model raises comes out of the future."""
        return asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)

    def _run(self, batch: Batch) -> Scored:
        started_s = time.perf_counter()
        self.is_busy = True
        try:
            return batch.serving.run(batch.records, batch.products, batch.prepared)
        finally:
            self.is_busy = False
            self._seconds.observe(time.perf_counter() - started_s)

    def close(self) -> None:
        """Take no more batches; a batch on the device runs to its end by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
