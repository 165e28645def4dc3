"""The model stage: batches wait, run on the model thread one after the other, and come out scored.

A batch that fails is cut until only the products at fault have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from worker.attempts import Attempts
from worker.inference import Batch, ModelThread
from worker.metrics import Metrics
from worker.poison import cut_to_poison, is_out_of_memory
from worker.serving import Scored

__all__ = ["ModelStage", "Parts"]

# Batches handed to the model thread: the one it runs and the next, so that it never waits for the
# event loop; both are finished in a drain.
_MAX_SUBMITTED = 2

# Of one batch: what was scored, and the products that failed alone with their errors.
Parts: TypeAlias = list[tuple[Batch, Scored | Exception]]


class ModelStage:
    """Runs what it is given, in order, on a thread of its own."""

    def __init__(self, attempts: Attempts, metrics: Metrics) -> None:
        self._attempts = attempts
        self._metrics = metrics
        self._model = ModelThread(metrics)
        # Bounded by the rule for polling: at most one window and a half.
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._num_put = 0
        self._num_inside = 0
        self._taken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._submitted: asyncio.Queue[tuple[Batch, str, asyncio.Future[Scored]]] = asyncio.Queue()
        self._names = [f"model-{number}" for number in range(_MAX_SUBMITTED)]
        self._submissions = asyncio.Semaphore(_MAX_SUBMITTED)

    @property
    def num_waiting(self) -> int:
        """Batches that no thread has yet."""
        return self._batches.qsize()

    @property
    def is_busy(self) -> bool:
        """Whether a batch runs now."""
        return self._model.is_busy

    def begin_window(self) -> None:
        """What is put from now on is of the next window."""
        self._num_put = 0

    def put(self, batches: Sequence[Batch]) -> None:
        """Queue batches."""
        self._num_put += len(batches)
        for batch in batches:
            self._batches.put_nowait(batch)
            self._num_inside += 1
            self._idle.clear()

    async def wants_more(self) -> None:
        """Wait until half of the last window's batches have been taken."""
        while self._batches.qsize() > self._num_put // 2:
            self._taken.clear()
            await self._taken.wait()

    async def idle(self) -> None:
        """Wait until everything that was put has come out."""
        await self._idle.wait()

    async def run_beside(self, batch: Batch) -> Scored:
        """Run a batch of no lane, once nothing else waits for the model.

        Raises:
            Exception: whatever the model does.
        """
        while self._num_inside:
            await self._idle.wait()
        return await self._model.submit(batch)

    async def finish(self) -> None:
        """Wait until the batches that the model thread has have come out."""
        await self._submitted.join()

    async def submit(self) -> None:
        """Hand batches to the model thread, for ever."""
        while True:
            await self._submissions.acquire()
            batch = await self._batches.get()
            self._taken.set()
            if not any(lane.is_open for lane in batch.lanes):
                self._submissions.release()  # other workers own all of its products by now
                self._out()
            else:
                name = self._names.pop()
                await self._attempts.enter(name, batch.records)
                # No await between the two: a batch that was submitted always comes out.
                self._submitted.put_nowait((batch, name, self._model.submit(batch)))

    async def emit(self, take: Callable[[Parts], Awaitable[None]]) -> None:
        """Give what comes out to ``take``, batch by batch, for ever."""
        while True:
            batch, name, scoring = await self._submitted.get()
            parts: Parts
            try:
                parts = [(batch, await scoring)]
                outcome = "done"
            except Exception as error:  # noqa: BLE001  any failure of a model is narrowed down
                outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
                parts = [part async for part in cut_to_poison(batch, self._model.submit, error)]
            self._metrics.batches.labels(outcome).inc()
            # The model goes on with the next while this one is put into words.
            await self._attempts.leave(name)
            self._names.append(name)
            self._submissions.release()
            await take(parts)
            self._submitted.task_done()
            self._out()

    def _out(self) -> None:
        self._num_inside -= 1
        if not self._num_inside:
            self._idle.set()

    def close(self) -> None:
        """Run nothing more; what is on the device runs to its end by itself."""
        self._model.close()
