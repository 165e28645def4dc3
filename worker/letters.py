"""Dead letters as they lie on their topic, and which of them are sent again as events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from worker.event_sources import OutEvent
from worker.hostile_records import fault_of
from worker.original_headers import LEFT_OUT, Headers, num_replays, replayed, restore
from worker.tolerant_parser import BAD_BATCH
from worker.topic_range import TopicRange

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]

__all__ = ["Choice", "Letter", "Replays", "Tally", "read_letter"]

# What a letter has that lacks a part of its event.
_CUT = frozenset({"key-cut-to", "value-cut-to", LEFT_OUT})


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        key, value, headers: the event's own.
        topic: where the event came from.
        is_cut: a part of the event is missing, or it is no single event.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    topic: str
    reason: str
    release: str
    timestamp_ms: int
    is_cut: bool


class Kind(NamedTuple):
    """What letters are counted by."""

    reason: str
    release: str
    day: str


def read_letter(record: Record) -> Letter | None:
    """The letter in a record; None where no worker wrote it."""
    if fault_of(record) is not None:
        return None
    # Ours come first, each once; the event's are prefixed.
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    try:
        return Letter(
            record.key,
            record.value,
            restore(record.headers),
            headers["input-topic"],
            headers["reason"],
            headers["release"],
            record.timestamp,
            is_cut=headers["reason"] == BAD_BATCH or not _CUT.isdisjoint(headers),
        )
    except KeyError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which letters are sent again, and where.

    Attributes:
        reasons, releases: only these; empty: any.
        max_replays: no event that was sent again so often.
        origins: the topics that events are sent back to.
        to_topic: where all are sent instead.
    """

    reasons: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()
    max_replays: int = 3
    origins: frozenset[str] = frozenset()
    to_topic: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of the letters that were read.

    Attributes:
        chosen: sent again, or would be.
        worn: left out, as their event was sent again often enough.
        cut: not to be sent, since a part of the event is missing.
        foreign: not to be sent, by the topic that their event came from.
        unreadable: records that no worker wrote.
    """

    chosen: Counter[Kind] = field(default_factory=Counter)
    worn: int = 0
    cut: int = 0
    foreign: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    @property
    def num_refused(self) -> int:
        """Letters that were asked for and cannot be sent."""
        return self.cut + self.foreign.total() + self.unreadable

    def choose(self, letter: Letter | None, choice: Choice) -> OutEvent | None:
        """Count a letter; its event, if it is to be sent again."""
        if letter is None:
            self.unreadable += 1
        elif (choice.reasons and letter.reason not in choice.reasons) or (
            choice.releases and letter.release not in choice.releases
        ):
            pass
        elif letter.is_cut:
            self.cut += 1
        elif num_replays(letter.headers) >= choice.max_replays:
            self.worn += 1
        elif choice.to_topic is None and letter.topic not in choice.origins:
            self.foreign[letter.topic] += 1
        else:
            day = datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC).date().isoformat()
            self.chosen[Kind(letter.reason, letter.release, day)] += 1
            return OutEvent(
                letter.key,
                letter.value,
                replayed(letter.headers),
                choice.to_topic or letter.topic,
            )
        return None


class Replays:
    """The events of chosen letters, as a source; ``tally`` counts what was read."""

    def __init__(self, letters: TopicRange, choice: Choice) -> None:
        self._letters = letters
        self._choice = choice
        self.tally = Tally()

    async def take(self, most: int) -> Sequence[OutEvent]:
        """As ``Source.take``."""
        while records := await self._letters.take(most):
            events = [
                event
                for record in records
                if (event := self.tally.choose(read_letter(record), self._choice)) is not None
            ]
            if events:
                return events
        return ()
