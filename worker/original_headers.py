"""An event's own headers in its dead letter: kept under names of their own, and restored from it.

Their names and values are the seller's. All are prefixed, and no header of ours begins so: none can
be taken for ours, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

__all__ = [
    "LEFT_OUT",
    "ORIGINAL",
    "REPLAYS",
    "Headers",
    "drop",
    "keep",
    "num_replays",
    "replayed",
    "restore",
]

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

ORIGINAL = "original-"
# Ours, in a letter that lacks some of its event's headers: how many.
LEFT_OUT = "headers-left-out"
# On an event that was sent again from its dead letter: how often that has happened.
REPLAYS = "sortiment-replays"

# Half of what a letter may have beyond its event; ours take some kilobytes.
_MAX_BYTES = 32 * 1024
# Lengths of name and value, as varints.
_FRAME_BYTES = 8
_MAX_DIGITS = 9


def keep(headers: Headers) -> list[tuple[str, bytes | None]]:
    """What a dead letter says of its event's headers, in their order.

    One that would take all of them beyond 32 KiB is left out, whole; ``LEFT_OUT`` then says how
    many are missing.
    """
    kept: list[tuple[str, bytes | None]] = []
    room = _MAX_BYTES
    for name, value in headers:
        prefixed = ORIGINAL + name
        size = len(prefixed.encode()) + len(value or b"") + _FRAME_BYTES
        if size <= room:
            room -= size
            kept.append((prefixed, value))
    return kept + _left_out(len(headers) - len(kept))


def drop(headers: Headers) -> list[tuple[str, bytes | None]] | None:
    """A dead letter's headers without any of its event's; None where it has none of them."""
    ours = [each for each in headers if not each[0].startswith(ORIGINAL) and each[0] != LEFT_OUT]
    num_kept = sum(name.startswith(ORIGINAL) for name, _ in headers)
    if not num_kept:
        return None
    before = next((int(value or b"0") for name, value in headers if name == LEFT_OUT), 0)
    return ours + _left_out(before + num_kept)


def restore(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The event's headers from its dead letter's, as far as they were kept."""
    return [
        (name.removeprefix(ORIGINAL), value) for name, value in headers if name.startswith(ORIGINAL)
    ]


def num_replays(headers: Headers) -> int:
    """How often an event was sent again; 0 too where its header holds anything but a number."""
    for name, value in headers:
        if name == REPLAYS and value and value.isdigit() and len(value) <= _MAX_DIGITS:
            return int(value)
    return 0


def replayed(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The headers of an event that is sent once more."""
    others = [each for each in headers if each[0] != REPLAYS]
    return [*others, (REPLAYS, b"%d" % (num_replays(headers) + 1))]


def _left_out(count: int) -> list[tuple[str, bytes | None]]:
    return [(LEFT_OUT, b"%d" % count)] if count else []
