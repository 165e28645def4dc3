"""Tells our faults from the sellers': what goes wrong too often stops the worker, not the stream.

The circuit breaker opens on a share of dead letters, and at once when so many products fail in a
row that none of them can be at fault; those come again once it lets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from worker.breaker import Breaker
from worker.lanes import DeadLetter
from worker.preparing import UNPREPARABLE, Preparation

__all__ = ["FaultWatch"]

_log = logging.getLogger(__name__)

# So many products that fail alone, one after the other, are no sellers' fault.
_MAX_FAILED_IN_A_ROW = 50
# After that so many tell that nothing has changed: a probe takes few products, and one of them may
# really be at fault.
_AGAIN_IN_A_ROW = 10


class FaultWatch:
    """Counts what fails in the stages, and stops the taking of products by the breaker."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._failed_in_a_row = 0
        self._unpreparable_in_a_row = 0

    @property
    def state(self) -> str:
        """The breaker's: closed, open or probing."""
        return self._breaker.state

    def why(self) -> str | None:
        """Why no products are taken; None where they are."""
        return self._breaker.why()

    async def permission(self) -> int | None:
        """Wait while the breaker is open; how many events may be taken then, None for any."""
        while True:
            most = self._breaker.may_take()
            if most != 0:
                return most
            # The group hears of the worker all the while, by the task that keeps it a member.
            await asyncio.sleep(self._breaker.wait_s())

    def settle(self) -> None:
        """All that was taken is through."""
        self._breaker.settle()

    def observe(self, num_events: int, dead: Sequence[DeadLetter]) -> None:
        """Count events and dead letters, as ``Breaker.observe`` wants them."""
        was_open = self._breaker.state == "open"
        self._breaker.observe(num_events, len(dead), dead[-1].reason if dead else "")
        if self._breaker.state == "open" and not was_open:
            self._tell()

    def prepared(self, preparation: Preparation) -> bool:
        """Whether a window's dead letters may go out; False where the preparer fails on all."""
        if preparation.batches:
            self._unpreparable_in_a_row = 0
            return True
        failed = [letter for _, letter in preparation.dead if letter.reason == UNPREPARABLE]
        self._unpreparable_in_a_row += len(failed)
        if not failed or self._unpreparable_in_a_row < _MAX_FAILED_IN_A_ROW:
            return True
        self._trip(
            f"{self._unpreparable_in_a_row} products in a row could not be prepared; none of the "
            f"last window was dead-lettered; last: {failed[-1].detail}"
        )
        self._unpreparable_in_a_row = _MAX_FAILED_IN_A_ROW - _AGAIN_IN_A_ROW
        return False

    def scored(self, results: Sequence[object]) -> bool:
        """Whether a batch's dead letters may go out; False where the model fails on all.

        Args:
            results: of the parts of a batch, in order; an exception is one product's.
        """
        for result in results:
            failed = isinstance(result, Exception)
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
            if self._failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
                self._trip(
                    f"{self._failed_in_a_row} products in a row failed in the model, each alone; "
                    f"none of the last batch was dead-lettered; last: {result!r}"
                )
                self._failed_in_a_row = _MAX_FAILED_IN_A_ROW - _AGAIN_IN_A_ROW
                return False
        return True

    def _trip(self, why: str) -> None:
        self._breaker.trip(why)
        self._tell()

    def _tell(self) -> None:
        _log.error("stopped taking products: %s", self._breaker.why())
