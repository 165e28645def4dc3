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
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mode import Service

from worker.announcement import Role
from worker.attempts import Attempts
from worker.batching import BatchingConfig
from worker.delivery import Delivery
from worker.events import Window, dead_letter, joined
from worker.fault_watch import FaultWatch
from worker.heap import freeze_heap, trim_heap_after
from worker.inference import Batch
from worker.intake import Intake
from worker.joining import Joining
from worker.lanes import Lane, Outcome, complete
from worker.metrics import Metrics
from worker.model_stage import ModelStage, ScoredParts
from worker.preparing import Preparation, prepare_window
from worker.rollout import Rollout
from worker.serving import Serving
from worker.shadow import Shadow
from worker.suspects import KILLED_WORKER, apart

__all__ = ["HotPath", "HotPathConfig"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_LAG_INTERVAL_S = 1.0
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
    """Runs the stages; crashes, and with it the worker, on any error that no stage owns.

    Attributes:
        rollout: which release answers which product.
    """

    mundane_level = "debug"

    def __init__(
        self,
        config: HotPathConfig,
        intake: Intake,
        delivery: Delivery,
        attempts: Attempts,
        faults: FaultWatch,
        rollout: Rollout,
        model: ModelStage,
        shadow: Shadow,
        metrics: Metrics,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = config
        self._intake = intake
        self._delivery = delivery
        self._attempts = attempts
        self._faults = faults
        self._metrics = metrics
        self.rollout = rollout
        self._model = model
        self._shadow = shadow
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._assembling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="assemble")
        self._has_serving = asyncio.Event()
        self._draining = False
        self._joining = Joining()
        self._running: asyncio.Task[None] | None = None
        self._stage_tasks: list[asyncio.Task[None]] = []

    def take_release(self, role: Role, serving: Serving | None, share: float = 1.0) -> None:
        """Give a role to a loaded release: windows prepared from now on use it."""
        if role == "canary":
            self.rollout.set_canary(serving, share)
        elif role == "shadow":
            self._shadow.serve(serving, share)
        elif serving is not None:
            self.rollout.set_active(serving)
            release = serving.release
            self._metrics.release.info(
                {"release": release.id, "taxonomy_version": release.taxonomy.version}
            )
            self._has_serving.set()
        if serving is not None:
            freeze_heap()
            trim_heap_after(serving.release)

    def not_ready(self) -> list[str]:
        """Why the worker takes no traffic yet; empty when it does."""
        reasons = []
        if self.rollout.active is None:
            reasons.append("no release is active")
        if not self._intake.is_assigned:
            reasons.append("partitions are not assigned and open yet")
        if self._joining.why_not:
            reasons.append(self._joining.why_not)
        if self._draining:
            reasons.append("the worker is draining")
        stopped = self._faults.why()
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
            "backfill": self._intake.backfill,
            "in_flight_products": self._intake.in_flight,
            "queues": {
                "batches": self._model.num_waiting,
                "model_busy": self._model.is_busy,
            },
            "attempts": self._attempts.state,
            "delivery": self._delivery.status(),
            "draining": self._draining,
            "breaker": {"state": self._faults.state, "why": self._faults.why()},
            "canary": self.rollout.status(),
            "shadow": self._shadow.status(),
        }

    async def on_start(self) -> None:
        """Start delivery and join the group once a release is active."""
        self._running = asyncio.create_task(self._run(), name="hot path")

    async def _run(self) -> None:
        try:
            await self._has_serving.wait()
            await self._joining.until_done(lambda: self._delivery.start(self._intake))
            await self._joining.until_done(self._intake.start)
            stages: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
                "preparing": self._prepare_windows,
                "model": self._model.submit,
                "emission": partial(self._model.emit, self._emit, self._is_worth_cutting),
                "delivery": self._delivery.failed,
                "membership": self._intake.stay_member,
                "lag": self._observe_lag,
                "shadow": self._shadow.run,
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
        await self._within(_NOTES_S, self._shadow.stop, "close the shadow's producer")
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
            finished = asyncio.create_task(self._model.finish())
            try:
                await asyncio.wait({finished, emission}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                finished.cancel()
        await self._delivery.flush()

    async def _prepare_windows(self) -> None:
        while True:
            await self._model.wants_more()
            parts = apart(await self._intake.next_window(await self._faults.permission()))
            for window in parts.alone:
                await self._model.idle()
                await self._prepare(self._active, window)
                await self._model.idle()
            await self._bury_spent(parts.spent)
            self._model.begin_window()
            for serving, part in self.rollout.route(parts.rest):
                await self._prepare(serving, part)
            if self._faults.state == "probing":
                await self._model.idle()
                self._faults.settle()

    @property
    def _active(self) -> Serving:
        assert self.rollout.active is not None  # the stages start with the first release
        return self.rollout.active

    async def _prepare(
        self, serving: Serving, window: Window, stage: str = "prepare", *, is_new: bool = True
    ) -> None:
        """Prepare a window and queue its batches.

        Args:
            stage: name of the note that its products are in hand.
            is_new: whether its events have not been counted before.
        """
        if not all(lane.is_open for lane in set(window.lanes)):
            # Others own them by now, and would take a note of ours for a death.
            window = window.part([row for row, lane in enumerate(window.lanes) if lane.is_open])
        if not len(window):
            return
        await self._attempts.enter(stage, window.records)
        prepare = partial(prepare_window, serving, window, self._config.batching)
        preparation = await self._on(self._preparing, "prepare", prepare)
        await self._attempts.leave(stage)
        instead = self.rollout.instead_of(serving)
        again = preparation.take_back() if instead is not None else []
        if instead is None and not self._faults.prepared(preparation):
            await self._give_back(window.lanes)
            return
        num_new = len(window) - len(again) if is_new else 0
        self._faults.observe(num_new, [letter for _, letter in preparation.dead])
        await self._bury(window, preparation)
        for batch in preparation.batches:
            self._observe_batch(batch)
        self._model.put(preparation.batches)
        if instead is not None and again:
            self.rollout.failed(serving, len(again))
            await self._prepare(instead, window.part(again), stage, is_new=is_new)

    async def _give_back(self, lanes: list[Lane]) -> None:
        """Drop what is in hand of these lanes: it comes again once the breaker lets it."""
        held = {lane for lane in lanes if lane.is_open}
        for lane in held:
            self._intake.lost(lane, 0.0)
        await self._delivery.close_lanes(held)

    def _is_worth_cutting(self, batch: Batch, num_failed: int) -> bool:
        """Another release answers what a canary fails on: it is only of interest how often."""
        if self.rollout.instead_of(batch.serving) is None:
            return True
        if num_failed:
            self.rollout.failed(batch.serving, num_failed)
        return self.rollout.is_canary(batch.serving)

    async def _emit(self, parts: ScoredParts) -> None:
        serving = parts[0][0].serving
        instead = self.rollout.instead_of(serving)
        if instead is None and not self._faults.scored([result for _, result in parts]):
            for part, _ in parts:
                await self._give_back(part.lanes)
            return
        again = []
        for part, result in parts:
            if not isinstance(result, Exception):
                results = await self._on(self._assembling, "assemble", result.assemble)
                self.rollout.answered(serving, results)
                self._shadow.offer(part, results)
                await self._complete(part.lanes, part.slots, results)
            elif instead is not None:
                again.append(part.window())
            else:
                detail = f"{type(result).__name__}: {result}"
                letter = dead_letter(part.records[0], "model_failed", detail, serving.release.id)
                self._faults.observe(0, [letter])
                await self._complete(part.lanes, part.slots, [letter])
        if instead is not None and again:
            await self._prepare(instead, joined(again), "prepare again", is_new=False)

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
        release = self._active.release.id
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

    async def _complete(
        self, lanes: list[Lane], slots: list[int], outcomes: Sequence[Outcome]
    ) -> None:
        """Put outcomes back into their lanes and submit the runs that this completes."""
        runs = complete(lanes, slots, outcomes)
        if runs:
            await self._delivery.submit(runs)

    def _observe_batch(self, batch: Batch) -> None:
        self._metrics.batch_products.observe(len(batch))
        self._metrics.batch_fill.observe(
            int(batch.prepared.costs.sum()) / self._config.batching.max_batch_tokens
        )

    async def _observe_lag(self) -> None:
        while True:
            await self._intake.measure_lag()
            self._metrics.in_flight.set(self._intake.in_flight)
            self._metrics.breaker_open.set(self._faults.state != "closed")
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
