"""A worker's stages in the test's own process: the hot path as the worker builds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition

from tests.polling import until
from worker.components import build_hot_path, inference_config
from worker.hot_path import HotPath
from worker.lanes import Lane
from worker.masks import MaskCacheConfig
from worker.metrics import Metrics
from worker.serving import Serving, ServingLoader
from worker.settings import Settings
from worker.settings_loading import load_settings
from worker.topics import ensure_topics

__all__ = ["HotPathRun", "goes_on", "load_serving", "sample", "says"]


def load_serving(directory: Path, metrics: Metrics | None = None) -> Serving:
    """A release ready to serve on the CPU, without Redis."""
    config = inference_config(load_settings({"device": "cpu", "torch_threads": 1}, env_file=None))
    return ServingLoader(config, MaskCacheConfig(), metrics or Metrics()).load(str(directory))


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of a metric; 0 where it was never counted."""
    return metrics.registry.get_sample_value(f"sortiment_{name}", labels) or 0.0


@dataclass
class HotPathRun:
    """Topics made, group joined, stages running, for as long as the block lasts.

    Attributes:
        given: settings by name, as in ``worker.settings``.
        serving: what answers.
        checked: called when the topics are checked, before the group is joined.
    """

    given: Mapping[str, object]
    serving: Serving
    metrics: Metrics = field(default_factory=Metrics)
    checked: Callable[[], None] = lambda: None
    _hot_path: HotPath | None = None
    _may_crash: bool = False

    @property
    def hot_path(self) -> HotPath:
        """The started stages."""
        assert self._hot_path is not None
        return self._hot_path

    async def __aenter__(self) -> HotPathRun:
        settings: Settings = load_settings(self.given, env_file=None)
        facts = await ensure_topics(settings.kafka(), settings.topics())
        self.checked()
        self._hot_path = build_hot_path(settings, facts, self.metrics)
        self._hot_path.take_release("active", self.serving)
        await self._hot_path.start()
        await until(lambda: "; ".join(self.hot_path.not_ready()) or None, 60, "partitions open")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self.hot_path.stop(), 60)
        assert self._may_crash or self.hot_path.crash_reason is None, repr(
            self.hot_path.crash_reason
        )

    @property
    def lanes(self) -> Mapping[TopicPartition, Lane]:
        """The open lanes."""
        return self.hot_path._intake.lanes

    async def crash(self) -> BaseException:
        """Wait until the stages have failed; what they failed with."""
        self._may_crash = True
        await until(lambda: None if self.hot_path.crash_reason else "all is well", 60, "a failure")
        error = self.hot_path.crash_reason
        assert error is not None
        return error


async def goes_on(run: HotPathRun, num: int = 500, deadline_s: float = 60) -> None:
    """Wait for so many more results."""
    wanted = sample(run.metrics, "results_total") + num

    def why_not() -> str | None:
        done = sample(run.metrics, "results_total")
        said = run.hot_path.not_ready(), run.hot_path.status()["delivery"]
        return None if done >= wanted else f"{done:g} results of {wanted:g}; {said}"

    await until(why_not, deadline_s, "on")


async def says(run: HotPathRun, reason: str, deadline_s: float = 30) -> None:
    """Wait until the worker says so in ``/readyz``."""

    def why_not() -> str | None:
        reasons = run.hot_path.not_ready()
        return None if any(reason in each for each in reasons) else f"it says {reasons}"

    await until(why_not, deadline_s, reason)
