"""Waiting for what tells nobody when it is so: it is asked again and again, up to a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["until", "until_blocking"]

_POLL_S = 0.05


async def until(why_not: Callable[[], str | None], deadline_s: float, what: str) -> None:
    """Ask on a thread until the answer is None; anything else is the reason why not yet.

    Raises:
        AssertionError: the deadline passed; with the last reason.
    """
    ends_s = time.monotonic() + deadline_s
    while (reason := await asyncio.to_thread(why_not)) is not None:
        assert time.monotonic() < ends_s, _late(what, deadline_s, reason)
        await asyncio.sleep(_POLL_S)


def until_blocking(why_not: Callable[[], str | None], deadline_s: float, what: str) -> None:
    """As ``until``, in this thread: for fixtures and tests without an event loop.

    Raises:
        AssertionError: the deadline passed; with the last reason.
    """
    ends_s = time.monotonic() + deadline_s
    while (reason := why_not()) is not None:
        assert time.monotonic() < ends_s, _late(what, deadline_s, reason)
        time.sleep(_POLL_S)


def _late(what: str, deadline_s: float, reason: str) -> str:
    return f"{what}: not after {deadline_s:g} s ({reason})"
