"""When most events end as dead letters, the fault is ours and not the sellers': stop, and probe.

Pure bookkeeping: whoever owns the stages asks ``may_take`` before a window and tells ``observe``
what became of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Breaker", "BreakerConfig", "State"]

State = Literal["closed", "open", "probing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """When to stop and how to start again.

    Attributes:
        max_dead_share: of the events of the window; above it the breaker opens. 1 never opens it.
        window_events: how many of the last events count.
        min_events: fewer say nothing.
        probe_interval_s: pause before a probe; doubled after each that fails, up to
            ``max_probe_interval_s``.
        probe_events: events a probe takes.
    """

    max_dead_share: float = 0.9
    window_events: int = 2_000
    min_events: int = 200
    probe_interval_s: float = 10.0
    max_probe_interval_s: float = 300.0
    probe_events: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.max_dead_share <= 1:
            raise ValueError(f"max_dead_share must lie in (0, 1], got {self.max_dead_share}")
        if not 1 <= self.min_events <= self.window_events:
            raise ValueError(
                f"min_events must lie in [1, window_events = {self.window_events}], got "
                f"{self.min_events}"
            )
        if self.probe_events < 1:
            raise ValueError(f"probe_events must be at least 1, got {self.probe_events}")
        if not 0 < self.probe_interval_s <= self.max_probe_interval_s:
            raise ValueError(
                "probe_interval_s must be positive and at most max_probe_interval_s, got "
                f"{self.probe_interval_s} and {self.max_probe_interval_s}"
            )


class Breaker:
    """Closed: everything passes. Open: nothing. Probing: a few events, and what becomes of them."""

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._recent: deque[tuple[int, int]] = deque()  # events, dead, of each observation
        self._num_events = 0
        self._num_dead = 0
        self._interval_s = config.probe_interval_s
        self._probe_at_s = 0.0
        self._last_reason = ""
        self._why = ""
        self.state: State = "closed"

    def may_take(self) -> int | None:
        """How many events may be taken now: None for any number, 0 for none."""
        if self.state == "open" and self._clock() >= self._probe_at_s:
            self.state = "probing"
            self._forget()
        if self.state == "closed":
            return None
        if self.state == "open":
            return 0
        return max(0, self._config.probe_events - self._num_events)

    def wait_s(self) -> float:
        """Time until the next probe; 0 when one is due or the breaker is not open."""
        return max(0.0, self._probe_at_s - self._clock()) if self.state == "open" else 0.0

    def observe(self, num_events: int, num_dead: int, reason: str = "") -> None:
        """Count events, all that were taken together, and how many of them are dead so far.

        Those that die later are counted then, with no events of their own: dead letters are known
        before results, and counted by themselves they would look like a flood.
        """
        if self.state == "open":
            return  # what was in hand when it opened says nothing new
        self._recent.append((num_events, num_dead))
        self._num_events += num_events
        self._num_dead += num_dead
        while self._num_events - self._recent[0][0] >= self._config.window_events:
            gone, gone_dead = self._recent.popleft()
            self._num_events -= gone
            self._num_dead -= gone_dead
        self._last_reason = reason or self._last_reason
        self._decide()

    def trip(self, why: str) -> None:
        """Open at once, for a reason that needs no counting."""
        if self.state == "open":
            return
        self._open_because(why)

    def _decide(self) -> None:
        config = self._config
        wanted = config.min_events if self.state == "closed" else config.probe_events
        if self._num_events < wanted:
            return
        if self._num_dead > config.max_dead_share * self._num_events:
            last = f" (last: {self._last_reason})" if self._last_reason else ""
            self._open_because(
                f"{self._num_dead} of the last {self._num_events} events became dead letters"
                f"{last}: the fault is hardly the sellers'"
            )

    def settle(self) -> None:
        """All that was taken is through: a probe that did not open the breaker closes it."""
        if self.state == "probing" and self._num_events >= self._config.probe_events:
            self.state = "closed"
            self._interval_s = self._config.probe_interval_s
            self._forget()

    def _open_because(self, why: str) -> None:
        if self.state == "probing":
            self._interval_s = min(2 * self._interval_s, self._config.max_probe_interval_s)
        self.state = "open"
        self._why = why
        self._probe_at_s = self._clock() + self._interval_s
        self._forget()

    def _forget(self) -> None:
        self._recent.clear()
        self._num_events = self._num_dead = 0

    def why(self) -> str | None:
        """Why nothing or little is taken, and what comes next; None when closed."""
        if self.state == "closed":
            return None
        if self.state == "probing":
            return f"{self._why}; trying {self._config.probe_events} events"
        return f"{self._why}; next try in {self.wait_s():.0f} s"
