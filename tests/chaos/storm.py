"""Hits members by chance, every few seconds, for as long as products come in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from random import Random

from tests.chaos.cells import Fault
from tests.chaos.members import Journal, Member
from worker.local.errors import LocalServiceError

__all__ = ["Storm"]

_FIRST_S = (0.5, 1.5)
_BETWEEN_S = (1.5, 4.5)
_DOWN_S = (0.0, 3.0)
# Beyond the session of workers and of brokers, 6 and 5 s: both are given up meanwhile.
_FROZEN_S = (7.5, 10.0)


class Storm:
    """One kind of fault on members of one kind.

    Args:
        max_down: how many may be away at a time.
        rng: chooses who, when and for how long.
    """

    def __init__(
        self, fault: Fault, members: Sequence[Member], max_down: int, rng: Random, journal: Journal
    ) -> None:
        self.num_faults = 0
        self._fault = fault
        self._members = members
        self._max_down = max_down
        self._rng = rng
        self._journal = journal
        self._down: dict[str, threading.Thread] = {}
        self._failures: list[BaseException] = []
        self._is_over = threading.Event()

    def rage(
        self,
        wait: Callable[[float], bool],
        least: int,
        look_after: Callable[[Member], None] = lambda _: None,
    ) -> None:
        """Hit members until ``wait`` says that it is enough; then wait until all are well.

        Args:
            wait: waits so many seconds at most; whether it is enough.
            least: number of faults without which it never is.
            look_after: called now and then for each member that is not being hit.

        Raises:
            LocalServiceError: a broker did not come back.
        """
        try:
            self._pause(wait, _FIRST_S)
            while True:
                self._down = {n: strike for n, strike in self._down.items() if strike.is_alive()}
                for member in self._free():
                    look_after(member)
                if self._failures:
                    break
                if len(self._down) < self._max_down:
                    self._strike(self._rng.choice(self._free()))
                if self._pause(wait, _BETWEEN_S) and self.num_faults >= least:
                    break
            for strike in self._down.values():
                strike.join()
        finally:
            self._is_over.set()
        if self._failures:
            raise self._failures[0]

    def _pause(self, wait: Callable[[float], bool], bounds: tuple[float, float]) -> bool:
        pause_s = self._rng.uniform(*bounds)
        enough = wait(pause_s)
        if enough:  # it has returned at once
            self._is_over.wait(pause_s)
        return enough

    def _free(self) -> list[Member]:
        return [member for member in self._members if member.name not in self._down]

    def _strike(self, member: Member) -> None:
        bounds = _FROZEN_S if self._fault == "sigstop" else _DOWN_S
        away_s = self._rng.uniform(*bounds)
        self.num_faults += 1
        strike = threading.Thread(
            target=self._hit, args=(member, away_s), name=f"hit {member.name}", daemon=True
        )
        self._down[member.name] = strike
        strike.start()

    def _hit(self, member: Member, away_s: float) -> None:
        try:
            self._journal.note(f"{self._fault} {member.name} for {away_s:.1f} s")
            if self._fault == "sigstop":
                member.freeze()
                self._is_over.wait(away_s)
                member.thaw()
            else:
                if self._fault == "kill9":
                    member.kill()
                else:
                    member.terminate()
                if self._is_over.wait(away_s):
                    return  # the run was broken off
                member.start()
            self._journal.note(f"{member.name} back")
            member.wait_well()
            self._journal.note(f"{member.name} well")
        except LocalServiceError as error:
            self._failures.append(error)
