"""The stages from Kafka to Kafka, wired: a sibling of the Faust app in one worker.

intake ─► preparing thread ─► batches ─► model thread ─► scored ─► assembling thread ─► lanes ─►
delivery. The next window is polled when the model has used up half of the last one's batches: until
then events wait in Kafka, so batches grow with the load and nothing ages in a queue. Beyond
``max_in_flight_products`` the intake stops polling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from mode import Service

from worker.batching import BatchingConfig
from worker.delivery import Delivery
from worker.events import Window, dead_letter
from worker.inference import Batch, ModelThread
from worker.intake import Intake
from worker.lanes import Lane, Outcome, Run
from worker.metrics import Metrics
from worker.poison import cut_to_poison, is_out_of_memory
from worker.preparing import Preparation, prepare_window
from worker.serving import Scored, Serving

__all__ = ["HotPath", "HotPathConfig"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

# Batches handed to the model thread: the one it runs and the next, so that it never waits for the
# event loop; both are finished in a drain.
_MAX_SUBMITTED = 2
_LAG_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HotPathConfig:
    """What the stages share.

    Attributes:
        batching: bounds of a batch.
        drain_timeout_s: on a stop: time for the batch in hand, its delivery, the commit and
            leaving the group, together.
    """

    batching: BatchingConfig
    drain_timeout_s: float = 25.0


class HotPath(Service):
    """Runs the stages; crashes, and with it the worker, on any error that no stage owns."""

    mundane_level = "debug"

    def __init__(
        self,
        config: HotPathConfig,
        intake: Intake,
        delivery: Delivery,
        metrics: Metrics,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = config
        self._intake = intake
        self._delivery = delivery
        self._metrics = metrics
        self._model = ModelThread(metrics)
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._assembling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="assemble")
        # Bounded by the rule for polling: at most one window and a half.
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._batch_taken = asyncio.Event()
        self._submitted: asyncio.Queue[tuple[Batch, asyncio.Future[Scored]]] = asyncio.Queue()
        self._submissions = asyncio.Semaphore(_MAX_SUBMITTED)
        self._has_serving = asyncio.Event()
        self._serving: Serving | None = None
        self._draining = False
        self._stage_tasks: list[asyncio.Task[None]] = []

    @property
    def serving(self) -> Serving | None:
        """The active release, None before the first."""
        return self._serving

    def serve(self, serving: Serving) -> None:
        """Make a loaded release the active one: windows prepared from now on use it."""
        self._serving = serving
        release = serving.release
        self._metrics.release.info(
            {"release": release.id, "taxonomy_version": release.taxonomy.version}
        )
        self._has_serving.set()

    def not_ready(self) -> list[str]:
        """Why the worker takes no traffic yet; empty when it does."""
        reasons = []
        if self._serving is None:
            reasons.append("no release is active")
        if not self._intake.is_assigned:
            reasons.append("partitions are not assigned and open yet")
        if self._draining:
            reasons.append("the worker is draining")
        return reasons

    def status(self) -> dict[str, Any]:
        """What an operator asks first."""
        lags = self._intake.lag()
        return {
            "assigned": [
                {
                    "topic": lane.partition.topic,
                    "partition": lane.partition.partition,
                    "epoch": lane.epoch,
                    "delivered": lane.delivered,
                    "committed": lane.committed,
                    "lag": lags.get(lane.partition),
                    "in_hand": lane.in_hand,
                }
                for lane in self._intake.lanes.values()
            ],
            "in_flight_products": self._intake.in_flight,
            "queues": {
                "batches": self._batches.qsize(),
                "model_busy": self._model.is_busy,
            },
            "draining": self._draining,
        }

    async def on_start(self) -> None:
        """Start delivery and join the group once a release is active."""
        self.add_future(self._run())

    async def _run(self) -> None:
        await self._has_serving.wait()
        await self._delivery.start(self._commit, self._intake.settled)
        await self._intake.start()
        stages = {
            "preparing": self._prepare_windows,
            "model": self._submit_batches,
            "emission": self._emit_scored,
            "delivery": self._delivery.failed,
            "lag": self._observe_lag,
        }
        self._stage_tasks = [
            asyncio.create_task(stage(), name=f"hot path: {name}") for name, stage in stages.items()
        ]
        done, _ = await asyncio.wait(self._stage_tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("%s failed", task.get_name())
                await self.crash(error)

    async def on_stop(self) -> None:
        """Drain: the batch in hand, its delivery, the commit, leaving the group."""
        self._draining = True
        try:
            await asyncio.wait_for(self._drain(), self._config.drain_timeout_s)
        except TimeoutError:
            _log.warning(
                "not drained within %g s: what is not committed comes again",
                self._config.drain_timeout_s,
            )
        finally:
            self._model.close()
            self._preparing.shutdown(wait=False, cancel_futures=True)
            self._assembling.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        if not self._stage_tasks:
            await self._delivery.stop()
            await self._intake.stop()
            return
        preparing, model, emission, *others = self._stage_tasks
        for task in (preparing, model):
            task.cancel()
        await asyncio.gather(preparing, model, return_exceptions=True)
        if not emission.done():
            finished = asyncio.create_task(self._submitted.join())
            await asyncio.wait({finished, emission}, return_when=asyncio.FIRST_COMPLETED)
            finished.cancel()
        emission.cancel()
        await self._delivery.stop()
        for task in others:
            task.cancel()
        await asyncio.gather(emission, *others, return_exceptions=True)
        await self._intake.stop()

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        await self._intake.consumer.commit(
            {partition: OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
        )

    async def _prepare_windows(self) -> None:
        num_batches = 0
        while True:
            while self._batches.qsize() > num_batches // 2:
                self._batch_taken.clear()
                await self._batch_taken.wait()
            window = await self._intake.next_window()
            assert self._serving is not None
            prepare = partial(prepare_window, self._serving, window, self._config.batching)
            preparation = await self._on(self._preparing, "prepare", prepare)
            await self._bury(window, preparation)
            for batch in preparation.batches:
                self._observe_batch(batch)
                self._batches.put_nowait(batch)
            num_batches = len(preparation.batches)

    async def _submit_batches(self) -> None:
        while True:
            await self._submissions.acquire()
            batch = await self._batches.get()
            self._batch_taken.set()
            # No await between the two: a batch that was submitted is always emitted.
            self._submitted.put_nowait((batch, self._model.submit(batch)))

    async def _emit_scored(self) -> None:
        while True:
            batch, scoring = await self._submitted.get()
            try:
                scored = await scoring
            except Exception as error:  # noqa: BLE001  any failure of a model is narrowed down
                await self._emit_parts(batch, error)
                self._submissions.release()
            else:
                # The model goes on with the next while this one is put into words.
                self._submissions.release()
                self._metrics.batches.labels("done").inc()
                await self._emit(batch, scored)
            self._submitted.task_done()

    async def _emit_parts(self, batch: Batch, error: Exception) -> None:
        outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
        self._metrics.batches.labels(outcome).inc()
        async for part, result in cut_to_poison(batch, self._model.submit, error):
            if isinstance(result, Exception):
                detail = f"{type(result).__name__}: {result}"
                letter = dead_letter(
                    part.records[0], "model_failed", detail, part.serving.release.id
                )
                await self._complete(part.lanes, part.slots, [letter])
            else:
                await self._emit(part, result)

    async def _emit(self, batch: Batch, scored: Scored) -> None:
        results = await self._on(self._assembling, "assemble", scored.assemble)
        await self._complete(batch.lanes, batch.slots, results)

    async def _bury(self, window: Window, preparation: Preparation) -> None:
        if preparation.dead:
            rows = [row for row, _ in preparation.dead]
            await self._complete(
                [window.lanes[row] for row in rows],
                [window.slots[row] for row in rows],
                [letter for _, letter in preparation.dead],
            )

    async def _complete(self, lanes: list[Lane], slots: list[int], outcomes: list[Any]) -> None:
        """Put outcomes back into their lanes and submit the runs that this completes."""
        by_lane: dict[Lane, tuple[list[int], list[Outcome]]] = {}
        for lane, slot, outcome in zip(lanes, slots, outcomes, strict=True):
            into = by_lane.get(lane)
            if into is None:
                into = by_lane[lane] = ([], [])
            into[0].append(slot)
            into[1].append(outcome)
        runs: list[Run] = []
        for lane, (lane_slots, lane_outcomes) in by_lane.items():
            # Results of a closed lane are dropped: its partition has another owner, or an epoch.
            if not lane.is_open:
                continue
            lane.complete(lane_slots, lane_outcomes)
            run = lane.release()
            if run is not None:
                runs.append(run)
        if runs:
            await self._delivery.submit(runs)

    def _observe_batch(self, batch: Batch) -> None:
        self._metrics.batch_products.observe(len(batch))
        self._metrics.batch_fill.observe(
            int(batch.prepared.costs.sum()) / self._config.batching.max_batch_tokens
        )

    async def _observe_lag(self) -> None:
        while True:
            for partition, lag in self._intake.lag().items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(lag)
            self._metrics.in_flight.set(self._intake.in_flight)
            self._metrics.ready.set(not self.not_ready())
            await asyncio.sleep(_LAG_INTERVAL_S)

    async def _on(self, executor: ThreadPoolExecutor, stage: str, call: Callable[[], T]) -> T:
        started_s = time.perf_counter()
        result: T = await asyncio.get_running_loop().run_in_executor(executor, call)
        self._metrics.stage_seconds.labels(stage).observe(time.perf_counter() - started_s)
        return result
