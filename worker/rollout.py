"""Which release answers which product: the active one, or a canary for a share of the keys."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from worker.canary import CanaryConfig, CanaryWatch
from worker.events import Window
from worker.lanes import Result
from worker.metrics import Metrics
from worker.serving import Serving

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["Rollout", "Sample"]


class Sample:
    """A share of the products, by a hash of their keys: a key is in it always or never.

    Args:
        salt: another one gives other products.
        share: from 0 to 1.
    """

    def __init__(self, salt: str, share: float) -> None:
        self.share = share
        self._salt = zlib.crc32(salt.encode())
        self._bound = round(share * 2**32)

    def has(self, record: ConsumerRecord[bytes | None, bytes | None]) -> bool:
        """Whether an event is in the sample; one without a key by its value."""
        return zlib.crc32(record.key or record.value or b"", self._salt) < self._bound


class Rollout:
    """Routes windows to servings, and judges the canary by what comes of it.

    Attributes:
        active: None before the first release.
        on_return: told of a canary that has left its bounds, and why; set by who can end it.
    """

    def __init__(self, config: CanaryConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._canary: tuple[Serving, Sample, CanaryWatch] | None = None
        self.active: Serving | None = None
        self.on_return: Callable[[Serving, str], None] = lambda serving, why: None

    def set_canary(self, serving: Serving | None, share: float) -> None:
        """Let a release answer a share of the products; None: no canary."""
        self._canary = None
        if serving is not None:
            sample = Sample(f"canary {serving.release.id}", share)
            self._canary = serving, sample, CanaryWatch(self._config)
        self._metrics.canary_share.set(share if serving is not None else 0)

    def route(self, window: Window) -> list[tuple[Serving, Window]]:
        """A window in parts, each with what answers it; every event is in one."""
        assert self.active is not None
        if self._canary is None:
            return [(self.active, window)]
        serving, sample, _ = self._canary
        rows: tuple[list[int], list[int]] = ([], [])
        for row, record in enumerate(window.records):
            rows[sample.has(record)].append(row)
        parts = zip((self.active, serving), map(window.part, rows), strict=True)
        return [(each, part) for each, part in parts if len(part)]

    def instead_of(self, serving: Serving) -> Serving | None:
        """What answers the products that a serving fails on; None: nothing, it is the last."""
        return self.active if serving is not self.active else None

    def failed(self, serving: Serving, num_products: int) -> None:
        """A serving could not answer products that another will."""
        if self._canary is not None and serving is self._canary[0]:
            self._metrics.canary_products.labels("failed").inc(num_products)
            self._canary[2].failed(num_products)
            self._judge()

    def answered(self, serving: Serving, results: Sequence[Result]) -> None:
        """Products were answered."""
        if self._canary is None:
            return
        canary, _, watch = self._canary
        num_review = sum(result.review for result in results)
        watch.answered(len(results), num_review, by_canary=serving is canary)
        if serving is canary:
            self._metrics.canary_products.labels("review").inc(num_review)
            self._metrics.canary_products.labels("assigned").inc(len(results) - num_review)
            self._judge()

    def status(self) -> dict[str, Any] | None:
        """The canary and how it does; None where there is none."""
        if self._canary is None:
            return None
        serving, sample, watch = self._canary
        return {"release": serving.release.id, "share": sample.share, **watch.status()}

    def _judge(self) -> None:
        assert self._canary is not None
        serving, _, watch = self._canary
        why = watch.why_return()
        if why is not None:
            self.set_canary(None, 0.0)
            self.on_return(serving, why)
