"""The model stage: batches wait, run on the model thread one after the other, and come out scored.

A batch that fails is cut until only the products at fault have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

from worker.attempts import Attempts
from worker.inference import Batch, ModelThread
from worker.metrics import Metrics
from worker.poison import cut_to_poison, is_out_of_memory
from worker.serving import Scored

__all__ = ["ModelStage", "ScoredParts"]

# Batches handed to the model thread: the one it runs and the next, so that it never waits for the
# event loop; both are finished in a drain.
_MAX_SUBMITTED = 2

# Of one batch: what was scored, and what failed, with its error: products alone, unless it was
# said that narrowing down is not worth it.
ScoredParts: TypeAlias = list[tuple[Batch, Scored | Exception]]


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
        self._in(len(batches))

    async def wants_more(self) -> None:
        """Wait until half of the last window's batches have been taken."""
        while self._batches.qsize() > self._num_put // 2:
            self._taken.clear()
            await self._taken.wait()

    async def idle(self) -> None:
        """Wait until everything that was put has come out."""
        await self._idle.wait()

    async def run_beside(self, batch: Batch, is_allowed: Callable[[], bool]) -> Scored | None:
        """Run a batch of no lane once nothing else is in the model stage.

        Args:
            is_allowed: asked at that moment.

        Returns:
            None where it was not allowed.

        Raises:
            Exception: whatever the model does.
        """
        while self._num_inside:
            await self._idle.wait()
        # No await between the two: what waits to be alone must find it in here.
        if not is_allowed():
            return None
        self._in(1)
        try:
            return await self._model.submit(batch)
        finally:
            self._out()

    async def finish(self) -> None:
        """Wait until the batches that the model thread has have come out."""
        await self._submitted.join()

    async def submit(self) -> None:
        """Hand batches to the model thread, for ever."""
        while True:
            await self._submissions.acquire()
            await self._submit_one(await self._batches.get())

    async def _submit_one(self, batch: Batch) -> None:
        self._taken.set()
        if not any(lane.is_open for lane in batch.lanes):
            self._submissions.release()  # other workers own all of its products by now
            self._out()
            return
        name = self._names.pop()
        await self._attempts.enter(name, batch.records)
        # No await between the two: a batch that was submitted always comes out.
        self._submitted.put_nowait((batch, name, self._model.submit(batch)))

    async def emit(
        self,
        take: Callable[[ScoredParts], Awaitable[None]],
        is_worth_cutting: Callable[[Batch, int], bool],
    ) -> None:
        """Give what comes out to ``take``, batch by batch, for ever.

        Args:
            is_worth_cutting: whether a failed batch is to be narrowed down further, told how many
                more of its products have failed alone.
        """
        while True:
            await self._emit_one(*await self._submitted.get(), take, is_worth_cutting)
            self._submitted.task_done()
            self._out()

    async def _emit_one(
        self,
        batch: Batch,
        name: str,
        scoring: asyncio.Future[Scored],
        take: Callable[[ScoredParts], Awaitable[None]],
        is_worth_cutting: Callable[[Batch, int], bool],
    ) -> None:
        parts: ScoredParts
        try:
            parts = [(batch, await scoring)]
            outcome = "done"
        except Exception as error:  # noqa: BLE001  any failure of a model is narrowed down
            outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
            parts = await self._cut(batch, error, is_worth_cutting)
        self._metrics.batches.labels(outcome).inc()
        # The model goes on with the next while this one is put into words.
        await self._attempts.leave(name)
        self._names.append(name)
        self._submissions.release()
        await take(parts)

    async def _cut(
        self, batch: Batch, error: Exception, is_worth_cutting: Callable[[Batch, int], bool]
    ) -> ScoredParts:
        if not is_worth_cutting(batch, 0):
            return [(batch, error)]
        parts: ScoredParts = []
        num_done = 0
        async with aclosing(cut_to_poison(batch, self._model.submit, error)) as cut:
            async for part, result in cut:
                parts.append((part, result))
                num_done += len(part)
                failed = isinstance(result, Exception)
                if failed and not is_worth_cutting(batch, len(part)) and num_done < len(batch):
                    parts.append((batch.part(num_done, len(batch)), error))
                    break
        return parts

    def _in(self, num_batches: int) -> None:
        self._num_inside += num_batches
        if self._num_inside:
            self._idle.clear()

    def _out(self) -> None:
        self._num_inside -= 1
        if not self._num_inside:
            self._idle.set()

    def close(self) -> None:
        """Run nothing more; what is on the device runs to its end by itself."""
        self._model.close()
