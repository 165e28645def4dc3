"""Lanes: one per assigned input partition, restoring offset order after mixed batches.

A lane is opened with an epoch when its partition is assigned and closed for ever when it is
revoked: results that come back to a closed lane are dropped, whoever owns the partition now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aiokafka import ConsumerRecord, TopicPartition

__all__ = ["DeadLetter", "Lane", "Outcome", "Result", "Run", "complete", "event_bytes"]


@dataclass(slots=True, eq=False)
class Result:
    """What a product became.

    Attributes:
        record: the input event.
        key: of both outputs.
        key_hash: murmur2 of the key without sign.
        release: name/version of the release that answered.
        categories, attributes: encoded events; None where the release has no such model.
        review: the product is left to a person.
        num_labels: attribute values emitted.
    """

    record: ConsumerRecord[bytes | None, bytes | None]
    key: bytes
    key_hash: int
    release: str
    categories: bytes | None
    attributes: bytes | None
    review: bool = False
    num_labels: int = 0


@dataclass(slots=True, eq=False)
class DeadLetter:
    """An event that cannot be processed, whole.

    Attributes:
        record: the input event.
        key, value: of the input event, as they were, or cut where the broker refused them.
        key_hash: chooses the partition: of the key, else of the event id.
        reason: stable code.
        headers: everything else that is known, reason first, the event's own last.
    """

    record: ConsumerRecord[bytes | None, bytes | None]
    key: bytes | None
    value: bytes | None
    key_hash: int
    reason: str
    headers: list[tuple[str, bytes | None]]

    @property
    def detail(self) -> str:
        """What the headers say to a person."""
        return next((text or b"").decode() for name, text in self.headers if name == "detail")


Outcome: TypeAlias = Result | DeadLetter


def event_bytes(record: ConsumerRecord[bytes | None, bytes | None]) -> int:
    """Size of an event's key and value; -1, aiokafka's size of a null, is small enough."""
    size: int = record.serialized_key_size + record.serialized_value_size
    return size


@dataclass(slots=True)
class Run:
    """Outcomes of one lane, contiguous in its offset order: the unit of delivery."""

    lane: Lane
    outcomes: list[Outcome]

    @property
    def num_bytes(self) -> int:
        """Size of the input events."""
        return sum([event_bytes(outcome.record) for outcome in self.outcomes])

    @property
    def next_offset(self) -> int:
        """What to commit once every outcome is with the broker."""
        offset: int = self.outcomes[-1].record.offset
        return offset + 1


@dataclass(slots=True, eq=False)
class Lane:
    """Outcomes of one input partition on their way back into offset order.

    Attributes:
        partition: the input partition.
        epoch: number of the assignment that opened the lane.
        is_open: False from revocation on.
        delivered: offset up to which everything is with the broker; None: nothing yet.
        committed: offset last committed; None: nothing yet.
        in_hand, in_hand_bytes: events taken and not yet delivered, and their size.
        next_offset: the one to be read next.
        deaths: how many workers died with an offset in hand, where any did.
    """

    partition: TopicPartition
    epoch: int
    is_open: bool = True
    delivered: int | None = None
    committed: int | None = None
    in_hand: int = 0
    in_hand_bytes: int = 0
    next_offset: int = 0
    deaths: dict[int, int] = field(default_factory=dict)
    _first: int = 0  # slot number of _waiting[0]
    _waiting: list[Outcome | None] = field(default_factory=list)

    def admit(self, num_events: int) -> int:
        """Take slots for the next events in offset order; returns the first slot."""
        slot = self._first + len(self._waiting)
        self._waiting.extend([None] * num_events)
        return slot

    def complete(self, slots: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Put outcomes into their slots."""
        first, waiting = self._first, self._waiting
        for slot, outcome in zip(slots, outcomes, strict=True):
            waiting[slot - first] = outcome

    def release(self) -> Run | None:
        """The outcomes that are now contiguous, if any; each is given once."""
        waiting = self._waiting
        try:
            ready = waiting.index(None)
        except ValueError:
            ready = len(waiting)
        if not ready:
            return None
        outcomes: list[Outcome] = waiting[:ready]  # type: ignore[assignment]
        del waiting[:ready]
        self._first += ready
        return Run(self, outcomes)

    @property
    def num_waiting(self) -> int:
        """Slots not yet released."""
        return len(self._waiting)

    def close(self) -> int:
        """Close for ever; returns how many slots were still waiting."""
        self.is_open = False
        dropped = len(self._waiting)
        self._first += dropped
        self._waiting.clear()
        return dropped


def complete(lanes: Sequence[Lane], slots: Sequence[int], outcomes: Sequence[Outcome]) -> list[Run]:
    """Put outcomes back into their lanes; the runs that this completes.

    Results of a closed lane are dropped: its partition has another owner, or an epoch.
    """
    by_lane: dict[Lane, tuple[list[int], list[Outcome]]] = {}
    for lane, slot, outcome in zip(lanes, slots, outcomes, strict=True):
        into = by_lane.get(lane)
        if into is None:
            into = by_lane[lane] = ([], [])
        into[0].append(slot)
        into[1].append(outcome)
    runs: list[Run] = []
    for lane, (lane_slots, lane_outcomes) in by_lane.items():
        if not lane.is_open:
            continue
        lane.complete(lane_slots, lane_outcomes)
        run = lane.release()
        if run is not None:
            runs.append(run)
    return runs
