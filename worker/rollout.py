"""Which release answers which product: the active one, or a canary for a share of the keys."""

from __future__ import annotations

import hashlib
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
        salt: samples of different salts are independent.
        share: from 0 to 1.
    """

    def __init__(self, salt: str, share: float) -> None:
        self.share = share
        self._salt = hashlib.blake2b(salt.encode(), digest_size=16).digest()
        self._bound = round(share * 2**32)

    def has(self, record: ConsumerRecord[bytes | None, bytes | None]) -> bool:
        """Whether an event is in the sample; one without a key by its value."""
        key = record.key or record.value or b""
        # Not a checksum: of two salts its samples would be equal or disjoint.
        digest = hashlib.blake2b(key, digest_size=4, key=self._salt).digest()
        return int.from_bytes(digest, "little") < self._bound


class Rollout:
    """Routes windows to servings, and judges the canary by what comes of it.

    Attributes:
        on_return: told of a canary that has left its bounds, and why; set by who can end it.
    """

    def __init__(self, config: CanaryConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._active: Serving | None = None
        self._canary: Serving | None = None
        self._sample = Sample("", 0.0)
        self._watch = CanaryWatch(config)
        self.on_return: Callable[[Serving, str], None] = lambda serving, why: None

    @property
    def active(self) -> Serving | None:
        """What answers all that the canary does not; None before the first release."""
        return self._active

    def set_active(self, serving: Serving) -> None:
        """Let a release answer; a canary is compared with it from now on."""
        self._active = serving
        self._watch = CanaryWatch(self._config)

    def set_canary(self, serving: Serving | None, share: float) -> None:
        """Let a release answer a share of the products; None: no canary."""
        self._canary = serving
        if serving is not None:
            self._sample = Sample(f"canary {serving.release.id}", share)
            self._watch = CanaryWatch(self._config)
        self._metrics.canary_share.set(share if serving is not None else 0)

    def is_canary(self, serving: Serving) -> bool:
        """Whether a serving is the canary; the active release, announced as one too, is none."""
        return serving is self._canary and serving is not self._active

    def route(self, window: Window) -> list[tuple[Serving, Window]]:
        """A window in parts, each with what answers it; every event is in one."""
        assert self._active is not None
        canary = self._canary
        if canary is None or canary is self._active:
            return [(self._active, window)]
        rows: tuple[list[int], list[int]] = ([], [])
        for row, (record, lane) in enumerate(zip(window.records, window.lanes, strict=True)):
            # What was in hand when a worker died may not meet a canary again.
            rows[self._sample.has(record) and record.offset not in lane.deaths].append(row)
        parts = zip((self._active, canary), map(window.part, rows), strict=True)
        return [(each, part) for each, part in parts if len(part)]

    def instead_of(self, serving: Serving) -> Serving | None:
        """What answers the products that a serving fails on; None: nothing, it is the last."""
        return self._active if serving is not self._active else None

    def failed(self, serving: Serving, num_products: int) -> None:
        """A serving could not answer products that another will."""
        if self.is_canary(serving):
            self._metrics.canary_products.labels("failed").inc(num_products)
            self._watch.failed(num_products)
            self._judge(serving)

    def answered(self, serving: Serving, results: Sequence[Result]) -> None:
        """Products were answered."""
        by_canary = self.is_canary(serving)
        if self._canary is None or not (by_canary or serving is self._active):
            return
        num_review = sum(result.review for result in results)
        self._watch.answered(len(results), num_review, by_canary=by_canary)
        if by_canary:
            self._metrics.canary_products.labels("review").inc(num_review)
            self._metrics.canary_products.labels("assigned").inc(len(results) - num_review)
            self._judge(serving)

    def status(self) -> dict[str, Any] | None:
        """The canary and how it does; None where there is none."""
        if self._canary is None:
            return None
        release = self._canary.release.id
        return {"release": release, "share": self._sample.share, **self._watch.status()}

    def _judge(self, canary: Serving) -> None:
        why = self._watch.why_return()
        if why is not None:
            self.set_canary(None, 0.0)
            self.on_return(canary, why)
