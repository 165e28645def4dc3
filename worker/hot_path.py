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
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mode import Service

from worker.attempts import Attempts
from worker.batching import BatchingConfig
from worker.breaker import Breaker
from worker.delivery import Delivery
from worker.events import Window, dead_letter
from worker.heap import freeze_heap
from worker.inference import Batch, ModelThread
from worker.intake import Intake
from worker.lanes import DeadLetter, Lane, Outcome, Run
from worker.metrics import Metrics
from worker.poison import cut_to_poison, is_out_of_memory
from worker.preparing import UNPREPARABLE, Preparation, prepare_window
from worker.serving import Scored, Serving
from worker.suspects import KILLED_WORKER, apart

__all__ = ["HotPath", "HotPathConfig"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

# Batches handed to the model thread: the one it runs and the next, so that it never waits for the
# event loop; both are finished in a drain.
_MAX_SUBMITTED = 2
_LAG_INTERVAL_S = 1.0
# So many products that fail alone, one after the other, are no sellers' fault: the breaker opens
# rather than that a stream is buried.
_MAX_FAILED_IN_A_ROW = 50
# Of the time for a drain, what the batches in hand may take; the rest is for commit and leaving.
_FINISH_SHARE = 0.7
_NOTES_S = 1.0


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
        attempts: Attempts,
        breaker: Breaker,
        metrics: Metrics,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = config
        self._intake = intake
        self._delivery = delivery
        self._attempts = attempts
        self._breaker = breaker
        self._metrics = metrics
        self._model = ModelThread(metrics)
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._assembling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="assemble")
        # Bounded by the rule for polling: at most one window and a half.
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._batch_taken = asyncio.Event()
        self._submitted: asyncio.Queue[tuple[Batch, str, asyncio.Future[Scored]]] = asyncio.Queue()
        self._model_stages = [f"model-{number}" for number in range(_MAX_SUBMITTED)]
        self._submissions = asyncio.Semaphore(_MAX_SUBMITTED)
        self._has_serving = asyncio.Event()
        self._serving: Serving | None = None
        self._draining = False
        self._failed_in_a_row = 0
        self._unpreparable_in_a_row = 0
        self._running: asyncio.Task[None] | None = None
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
        freeze_heap()
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
        stopped = self._breaker.why()
        if stopped is not None:
            reasons.append(stopped)
        return reasons + self._delivery.not_ready()

    def status(self) -> dict[str, Any]:
        """What an operator asks first."""
        lags = self._intake.lags
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
            "delivery": self._delivery.status(),
            "draining": self._draining,
            "breaker": {"state": self._breaker.state, "why": self._breaker.why()},
        }

    async def on_start(self) -> None:
        """Start delivery and join the group once a release is active."""
        self._running = asyncio.create_task(self._run(), name="hot path")

    async def _run(self) -> None:
        try:
            await self._has_serving.wait()
            await self._delivery.start(self._intake)
            await self._intake.start()
            stages = {
                "preparing": self._prepare_windows,
                "model": self._submit_batches,
                "emission": self._emit_scored,
                "delivery": self._delivery.failed,
                "membership": self._intake.stay_member,
                "lag": self._observe_lag,
            }
            self._stage_tasks = [
                asyncio.create_task(stage(), name=f"hot path: {name}")
                for name, stage in stages.items()
            ]
            await asyncio.gather(*self._stage_tasks)
        except Exception as error:  # noqa: BLE001  whatever it is, the worker ends by it
            await self.crash(error)

    async def on_stop(self) -> None:
        """Drain: the batches in hand, their delivery, the commit, leaving the group."""
        self._draining = True
        self._intake.close()
        budget_s = self._config.drain_timeout_s
        await self._within(_FINISH_SHARE * budget_s, self._finish_batches, "finish and send")
        for task in (self._running, *self._stage_tasks):
            if task is not None:
                task.cancel()
        await asyncio.gather(*self._stage_tasks, return_exceptions=True)
        self._model.close()
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._assembling.shutdown(wait=False, cancel_futures=True)
        await self._within(_NOTES_S, self._attempts.withdraw, "take back its notes")
        # Whatever happened before: what is out is committed, and the partitions are given up.
        remaining_s = (1 - _FINISH_SHARE) * budget_s / 2
        await self._within(remaining_s, self._delivery.stop, "commit")
        await self._within(remaining_s, self._intake.stop, "leave the group")
        await self._attempts.close()

    async def _within(self, seconds: float, step: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                await step()
        except TimeoutError:
            _log.warning("drain: could not %s within %.1f s", what, seconds)
        except Exception:  # noqa: BLE001  the next steps of the drain must be tried all the same
            _log.exception("drain: could not %s", what)

    async def _finish_batches(self) -> None:
        """Take nothing new; see what the model thread has through to the broker."""
        if not self._stage_tasks:
            return
        preparing, model, emission, *_ = self._stage_tasks
        for task in (preparing, model):
            task.cancel()
        await asyncio.gather(preparing, model, return_exceptions=True)
        if not emission.done():
            finished = asyncio.create_task(self._submitted.join())
            try:
                await asyncio.wait({finished, emission}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                finished.cancel()
        await self._delivery.flush()

    async def _prepare_windows(self) -> None:
        num_batches = 0
        while True:
            while self._batches.qsize() > num_batches // 2:
                self._batch_taken.clear()
                await self._batch_taken.wait()
            parts = apart(await self._intake.next_window(await self._permission()))
            for window in parts.alone:
                await self._wait_until_idle()
                await self._prepare(window)
                await self._wait_until_idle()
            await self._bury_spent(parts.spent)
            if len(parts.rest):
                num_batches = await self._prepare(parts.rest)
            if self._breaker.state == "probing":
                await self._wait_until_idle()
                self._breaker.settle()

    async def _permission(self) -> int | None:
        """Wait while the breaker is open; how many events may be taken then, None for any."""
        while True:
            most = self._breaker.may_take()
            if most != 0:
                return most
            # The group hears of the worker all the while, by the task that keeps it a member.
            await asyncio.sleep(self._breaker.wait_s())

    async def _prepare(self, window: Window) -> int:
        """Prepare a window and queue its batches; returns how many."""
        assert self._serving is not None
        await self._attempts.enter("prepare", window.records)
        prepare = partial(prepare_window, self._serving, window, self._config.batching)
        preparation = await self._on(self._preparing, "prepare", prepare)
        await self._attempts.leave("prepare")
        if self._nothing_can_be_prepared(preparation):
            await self._give_back(window.lanes)
            return 0
        dead = [letter for _, letter in preparation.dead]
        self._observe_outcomes(len(window), dead)
        await self._bury(window, preparation)
        for batch in preparation.batches:
            self._observe_batch(batch)
            self._batches.put_nowait(batch)
        return len(preparation.batches)

    async def _wait_until_idle(self) -> None:
        """Until no other product is in a stage that it could be blamed for."""
        await self._batches.join()
        await self._submitted.join()

    def _nothing_can_be_prepared(self, preparation: Preparation) -> bool:
        """As for the model: when nothing can be prepared, the fault is no seller's."""
        if preparation.batches:
            self._unpreparable_in_a_row = 0
            return False
        failed = [letter for _, letter in preparation.dead if letter.reason == UNPREPARABLE]
        self._unpreparable_in_a_row += len(failed)
        if self._unpreparable_in_a_row >= _MAX_FAILED_IN_A_ROW:
            detail = dict(failed[-1].headers)["detail"].decode()
            self._trip(
                f"{self._unpreparable_in_a_row} products in a row could not be prepared; none of "
                f"the last window was dead-lettered; last: {detail}"
            )
            return True
        return False

    def _trip(self, why: str) -> None:
        self._breaker.trip(why)
        _log.error("stopped taking products: %s", self._breaker.why())

    async def _give_back(self, lanes: list[Lane]) -> None:
        """Drop what is in hand of these lanes: it comes again once the breaker lets it."""
        held = {lane for lane in lanes if lane.is_open}
        for lane in held:
            self._intake.lost(lane, 0.0)
        await self._delivery.close_lanes(held)

    async def _submit_batches(self) -> None:
        while True:
            await self._submissions.acquire()
            batch = await self._batches.get()
            self._batch_taken.set()
            if not any(lane.is_open for lane in batch.lanes):
                self._submissions.release()  # other workers own all of its products by now
            else:
                stage = self._model_stages.pop()
                await self._attempts.enter(stage, batch.records)
                # No await between the two: a batch that was submitted is always emitted.
                self._submitted.put_nowait((batch, stage, self._model.submit(batch)))
            self._batches.task_done()

    async def _emit_scored(self) -> None:
        while True:
            batch, stage, scoring = await self._submitted.get()
            try:
                scored = await scoring
            except Exception as error:  # noqa: BLE001  any failure of a model is narrowed down
                await self._emit_parts(batch, error)
                await self._leave_model(stage)
            else:
                # The model goes on with the next while this one is put into words.
                await self._leave_model(stage)
                self._metrics.batches.labels("done").inc()
                self._failed_in_a_row = 0
                await self._emit(batch, scored)
            self._submitted.task_done()

    async def _leave_model(self, stage: str) -> None:
        await self._attempts.leave(stage)
        self._model_stages.append(stage)
        self._submissions.release()

    async def _emit_parts(self, batch: Batch, error: Exception) -> None:
        outcome = "out_of_memory" if is_out_of_memory(error) else "failed"
        self._metrics.batches.labels(outcome).inc()
        parts = [part async for part in cut_to_poison(batch, self._model.submit, error)]
        for _, result in parts:
            failed = isinstance(result, Exception)
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
            if self._failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
                self._trip(
                    f"{self._failed_in_a_row} products in a row failed in the model, each alone; "
                    f"none of the last batch was dead-lettered; last: {result!r}"
                )
                await self._give_back(batch.lanes)
                return
        for part, result in parts:
            if isinstance(result, Exception):
                detail = f"{type(result).__name__}: {result}"
                letter = dead_letter(
                    part.records[0], "model_failed", detail, part.serving.release.id
                )
                self._observe_outcomes(0, [letter])
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

    async def _bury_spent(self, spent: Window) -> None:
        if not len(spent):
            return
        assert self._serving is not None
        release = self._serving.release.id
        letters = [
            dead_letter(
                record,
                KILLED_WORKER,
                f"{lane.deaths[record.offset]} workers died with this product in hand, the last "
                "one with nothing else",
                release,
            )
            for record, lane in zip(spent.records, spent.lanes, strict=True)
        ]
        await self._complete(spent.lanes, spent.slots, letters)

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

    def _observe_outcomes(self, num_events: int, dead: list[DeadLetter]) -> None:
        was_open = self._breaker.state == "open"
        self._breaker.observe(num_events, len(dead), dead[-1].reason if dead else "")
        if self._breaker.state == "open" and not was_open:
            _log.error("stopped taking products: %s", self._breaker.why())

    def _observe_batch(self, batch: Batch) -> None:
        self._metrics.batch_products.observe(len(batch))
        self._metrics.batch_fill.observe(
            int(batch.prepared.costs.sum()) / self._config.batching.max_batch_tokens
        )

    async def _observe_lag(self) -> None:
        while True:
            self._metrics.lag.clear()  # of partitions that have gone
            for partition, lag in (await self._intake.measure_lag()).items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(lag)
            self._metrics.in_flight.set(self._intake.in_flight)
            self._metrics.breaker_open.set(self._breaker.state != "closed")
            self._metrics.ready.set(not self.not_ready())
            await self._forget_delivered()
            await asyncio.sleep(_LAG_INTERVAL_S)

    async def _forget_delivered(self) -> None:
        """Deaths say nothing any more once a product is through."""
        for lane in list(self._intake.lanes.values()):
            through = [offset for offset in lane.deaths if offset < (lane.committed or 0)]
            await self._attempts.forget(lane.partition, through)
            for offset in through:
                del lane.deaths[offset]

    async def _on(self, executor: ThreadPoolExecutor, stage: str, call: Callable[[], T]) -> T:
        started_s = time.perf_counter()
        result: T = await asyncio.get_running_loop().run_in_executor(executor, call)
        self._metrics.stage_seconds.labels(stage).observe(time.perf_counter() - started_s)
        return result
