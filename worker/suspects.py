"""Products that were in hand when a worker died: set apart from the rest of a window."""

from __future__ import annotations

from dataclasses import dataclass

from worker.events import Window

__all__ = ["KILLED_WORKER", "Parts", "apart"]

KILLED_WORKER = "killed_worker"  # reason of the dead letter
# The third attempt is made alone, so that no other product is blamed for what it does.
_DEATHS_BEFORE_ALONE = 2
_DEATHS_BEFORE_DEAD_LETTER = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """A window in parts; every event is in one.

    Attributes:
        rest: nothing is known against these.
        alone: one event each, which may be the one that kills.
        spent: events that have had their attempts.
    """

    rest: Window
    alone: list[Window]
    spent: Window


def apart(window: Window) -> Parts:
    """Part a window by what its lanes know of earlier deaths."""
    if not any(lane.deaths for lane in set(window.lanes)):
        return Parts(window, [], window.part([]))
    rest, alone, spent = [], [], []
    for row, (record, lane) in enumerate(zip(window.records, window.lanes, strict=True)):
        deaths = lane.deaths.get(record.offset, 0)
        if deaths >= _DEATHS_BEFORE_DEAD_LETTER:
            spent.append(row)
        elif deaths >= _DEATHS_BEFORE_ALONE:
            alone.append(row)
        else:
            rest.append(row)
    return Parts(window.part(rest), [window.part([row]) for row in alone], window.part(spent))
