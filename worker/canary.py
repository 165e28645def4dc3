"""Whether a canary release may go on: what becomes of its products, beside the active release's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["CanaryConfig", "CanaryWatch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryConfig:
    """Bounds that a canary must keep.

    Attributes:
        max_failed_share: of its products, those that it could not answer.
        max_review_rise: share of ``review`` among its answers, less that among the active
            release's.
        min_products: fewer answers, of either, say nothing about ``review``; as few failures as
            ``max_failed_share`` of so many are always borne.
        window_products: how many of the last products of each count.
    """

    max_failed_share: float = 0.01
    max_review_rise: float = 0.1
    min_products: int = 200
    window_products: int = 2_000

    def __post_init__(self) -> None:
        for name in ("max_failed_share", "max_review_rise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 1 <= self.min_products <= self.window_products:
            raise ValueError(
                f"min_products must lie in [1, window_products = {self.window_products}], got "
                f"{self.min_products}"
            )


class CanaryWatch:
    """Counts of one canary; pure bookkeeping."""

    def __init__(self, config: CanaryConfig) -> None:
        self._config = config
        self._canary = _Recent(config.window_products)
        self._active = _Recent(config.window_products)

    def answered(self, num_products: int, num_review: int, *, by_canary: bool) -> None:
        """Products were answered, so many of them with ``review``."""
        recent = self._canary if by_canary else self._active
        recent.add(num_products, num_review, 0)

    def failed(self, num_products: int) -> None:
        """Products that the canary could not answer, and the active release must."""
        self._canary.add(num_products, 0, num_products)

    def why_return(self) -> str | None:
        """What is out of bounds; None where all is well so far."""
        config, canary, active = self._config, self._canary, self._active
        allowed = config.max_failed_share * max(canary.num_products, config.min_products)
        if canary.num_failed > allowed:
            return (
                f"it failed on {canary.num_failed} of its last {canary.num_products} products; "
                f"allowed is a share of {config.max_failed_share:g}"
            )
        if min(canary.num_answered, active.num_answered) < config.min_products:
            return None
        if canary.review_share - active.review_share > config.max_review_rise:
            return (
                f"it left {canary.review_share:.1%} of its last {canary.num_answered} products to "
                f"review, the active release {active.review_share:.1%}; allowed is a rise of "
                f"{config.max_review_rise:g}"
            )
        return None

    def status(self) -> dict[str, int]:
        """Counts of the windows."""
        return {
            "products": self._canary.num_products,
            "failed": self._canary.num_failed,
            "review": self._canary.num_review,
            "active_products": self._active.num_products,
            "active_review": self._active.num_review,
        }


class _Recent:
    """The last products: how many, left to review, failed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._added: deque[tuple[int, int, int]] = deque()
        self.num_products = 0
        self.num_review = 0
        self.num_failed = 0

    def add(self, num_products: int, num_review: int, num_failed: int) -> None:
        self._added.append((num_products, num_review, num_failed))
        self._count(num_products, num_review, num_failed, 1)
        # The oldest go while the rest is a whole window.
        while self.num_products - self._added[0][0] >= self._size:
            self._count(*self._added.popleft(), -1)

    def _count(self, num_products: int, num_review: int, num_failed: int, sign: int) -> None:
        self.num_products += sign * num_products
        self.num_review += sign * num_review
        self.num_failed += sign * num_failed

    @property
    def num_answered(self) -> int:
        return self.num_products - self.num_failed

    @property
    def review_share(self) -> float:
        return self.num_review / self.num_answered if self.num_answered else 0.0
