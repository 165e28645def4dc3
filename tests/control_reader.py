"""A reader of the control topic, in the test's own process, and what it has handed over."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.polling import until
from worker.announce import tell_return
from worker.announcement import Role
from worker.kafka import KafkaConfig
from worker.masks import MaskCacheConfig
from worker.metrics import Metrics
from worker.releases import ReleaseControl
from worker.serving import InferenceConfig, Serving, ServingLoader

__all__ = ["Control"]


class _GatedLoader(ServingLoader):
    """Loads nothing from addresses that are held up, until they are let go."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gates: dict[str, threading.Event] = {}
        self.waiting: set[str] = set()

    def load(self, address: str, manifest_sha256: str | None = None) -> Serving:
        if address in self.gates:
            self.waiting.add(address)
            assert self.gates[address].wait(60)
        return super().load(address, manifest_sha256)


class Control:
    """A started or not yet started ``ReleaseControl``.

    Attributes:
        served: what each role was given, in order.
    """

    def __init__(
        self, kafka: KafkaConfig, topic: str, cache: Path, pinned: str | None = None
    ) -> None:
        self.metrics = Metrics()
        self.taken: defaultdict[Role, list[tuple[Serving | None, float]]] = defaultdict(list)
        config = InferenceConfig(device="cpu", torch_threads=1, release_cache=cache)
        self.loader = _GatedLoader(config, MaskCacheConfig(), self.metrics)

        def take(role: Role, serving: Serving | None, share: float = 1.0) -> None:
            self.taken[role].append((serving, share))

        self.service = ReleaseControl(
            kafka,
            topic,
            self.loader,
            take,
            lambda ended: tell_return(ended, kafka, topic),
            self.metrics,
            pinned=pinned,
        )

    async def until(self, is_so: Callable[[], bool]) -> None:
        await until(lambda: None if is_so() else str(self.status), 60, "what the reader tells")

    def hold_up(self, directory: Path) -> None:
        """Load the release there only once it is let go."""
        self.loader.gates[str(directory)] = threading.Event()

    async def held_up(self, directory: Path) -> None:
        """Wait until the release there would be loaded."""
        await self.until(lambda: str(directory) in self.loader.waiting)

    def let_go(self, directory: Path) -> None:
        self.loader.gates[str(directory)].set()

    def last(self, role: Role) -> str | None:
        """The release that a role was given last; None for none."""
        serving = self.taken[role][-1][0] if self.taken[role] else None
        return serving.release.id if serving is not None else None

    @property
    def served(self) -> list[Serving]:
        """What the active role was given."""
        return [serving for serving, _ in self.taken["active"] if serving is not None]

    @property
    def status(self) -> dict[str, Any]:
        return self.service.status()

    @property
    def note(self) -> str:
        return str(self.status["note"])

    @property
    def refusals(self) -> float:
        (metric,) = self.metrics.refused_releases.collect()
        return metric.samples[0].value
