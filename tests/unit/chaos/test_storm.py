from __future__ import annotations

import threading
from pathlib import Path
from random import Random

import pytest

from tests.chaos import storm as storm_module
from tests.chaos.cells import Fault
from tests.chaos.members import Journal
from tests.chaos.storm import Storm
from worker.local.errors import LocalServiceError


class Recorder:
    """A member that notes what is done to it, and how many are away with it."""

    def __init__(self, name: str, away: set[str], fails: bool = False) -> None:
        self.name = name
        self.done: list[str] = []
        self._away = away
        self._fails = fails
        self.seen_away = 0

    def _leave(self, how: str) -> None:
        self.done.append(how)
        self._away.add(self.name)
        self.seen_away = max(self.seen_away, len(self._away))

    def kill(self) -> None:
        self._leave("kill")

    def terminate(self) -> None:
        self._leave("terminate")

    def freeze(self) -> None:
        self._leave("freeze")

    def thaw(self) -> None:
        self.done.append("thaw")

    def start(self) -> None:
        self.done.append("start")

    def wait_well(self) -> None:
        if self._fails:
            raise LocalServiceError("it did not come back")
        self.done.append("well")
        self._away.discard(self.name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_S", "_BETWEEN_S", "_DOWN_S", "_FROZEN_S"):
        monkeypatch.setattr(storm_module, name, (0.0, 0.004))


def rage(
    members: list[Recorder], fault: Fault, max_down: int, path: Path, least: int = 30
) -> Storm:
    storm = Storm(fault, members, max_down, Random(1), Journal(path / "faults.log"))
    over = threading.Event()
    over.set()
    storm.rage(over.wait, least)
    return storm


@pytest.mark.parametrize(
    ("fault", "course"),
    [
        ("kill9", ["kill", "start", "well"]),
        ("sigterm", ["terminate", "start", "well"]),
        ("sigstop", ["freeze", "thaw", "well"]),
    ],
)
@pytest.mark.parametrize("max_down", [1, 2])
def test_each_fault_runs_its_course_and_not_too_many_are_away(
    fault: Fault, course: list[str], max_down: int, tmp_path: Path
) -> None:
    away: set[str] = set()
    members = [Recorder(name, away) for name in "abc"]
    storm = rage(members, fault, max_down, tmp_path)
    assert storm.num_faults >= 30
    assert sum(len(member.done) for member in members) == storm.num_faults * len(course)
    for member in members:
        assert member.done == course * (len(member.done) // len(course))
        assert member.done  # all have their turn
    assert max(member.seen_away for member in members) <= max_down
    assert not away


def test_a_member_that_does_not_come_back_ends_it(tmp_path: Path) -> None:
    away: set[str] = set()
    with pytest.raises(LocalServiceError, match="did not come back"):
        rage([Recorder(name, away, fails=True) for name in "abc"], "kill9", 1, tmp_path)


def test_members_at_large_are_looked_after(tmp_path: Path) -> None:
    members = [Recorder(name, set()) for name in "abc"]
    storm = Storm("kill9", members, 1, Random(1), Journal(tmp_path / "faults.log"))
    over = threading.Event()
    over.set()
    seen: list[str] = []
    storm.rage(over.wait, 5, lambda member: seen.append(member.name))
    assert set(seen) == {"a", "b", "c"}
