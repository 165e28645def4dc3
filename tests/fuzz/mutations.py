"""What sellers' systems, attackers and broken encoders send: seeded mutations of real events."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import orjson

__all__ = ["mutate", "mutate_key"]

_NASTY_TEXTS = (
    "", " ", "\x00", "\ufeff", "\u202e\u202d", "\u200b" * 50, "é" + "\u0301" * 500,
    "ﷺ" * 2_000,
    "<" * 5_000, "<b" * 2_000, "&lt;" * 2_000, "&#x0;&#xD800;&#99999999;", "<!--" * 500,
    "<script>alert(1)</script>", "<![CDATA[" + "]" * 300, "'; DROP TABLE products; --", "${jndi:x}",
    "../../etc/passwd", "%s%n{0}{{}}", "=cmd|' /C calc'!A0", "[bold red]x[/]",
    "\x1b[2J\x1b]0;x\x07",
    "\r\nX-Injected: 1", "𝕳𝖊𝖑𝖑𝖔", "ｱｲｳｴｵ" * 30, "💥" * 400, "a" * 70_000, "字" * 30_000,
)  # fmt: skip
_NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**53 + 1, [], {}, [None], [[[]]], {"a": {"b": []}},
    ["x"] * 100, [1, "a", None], "x" * 600, {"title": "nested"},
)  # fmt: skip
_FIELDS = (
    "product_id", "title", "description", "bullets", "images", "image", "locale", "version",
    "claimed_category", "surprise",
)  # fmt: skip
_RAW = (
    b"", b" ", b"null", b"true", b"0", b'""', b"[]", b"{}", b"NaN", b"-Infinity", b"{" * 2_000,
    b"[" * 200_000, b'{"a":' * 3_000 + b"1" + b"}" * 3_000, b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00", b"\x80abc", b'{"product_id":"x","title":"\\ud800"}',
    b'{"product_id":"x","title":"\xed\xa0\x80"}',
    b'{"product_id":1e999,"title":"x"}', b'{"product_id":"x","title":"t"}garbage',
    b'{"product_id":"x","product_id":"y","title":1,"title":"last"}', b"\x00" * 500,
    b'{"product_id":123456789012345678901234567890,"title":"x"}', b"\x1f\x8b\x08\x00gz",
)  # fmt: skip


def mutate(event: dict[str, Any], rng: Random) -> bytes | None:
    """The value of an input event: often still valid, often nearly, sometimes nothing of it."""
    return rng.choices(_KINDS, _WEIGHTS)[0](dict(event), rng)


def mutate_key(key: bytes, rng: Random) -> bytes | None:
    """A key: mostly as it was; else none, empty, binary or long."""
    kind = rng.random()
    if kind < 0.9:
        return key
    if kind < 0.94:
        return None
    if kind < 0.95:
        return b""
    return rng.randbytes(rng.choice((1, 3, 16, 255, 257, 4_000)))


def _unchanged(event: dict[str, Any], rng: Random) -> bytes:
    return orjson.dumps(event)


def _tombstone(event: dict[str, Any], rng: Random) -> None:
    return None


def _raw(event: dict[str, Any], rng: Random) -> bytes:
    return rng.choice(_RAW)


def _field_dropped(event: dict[str, Any], rng: Random) -> bytes:
    event.pop(rng.choice(list(event)), None)
    return orjson.dumps(event)


def _field_of_wrong_type(event: dict[str, Any], rng: Random) -> bytes:
    event[rng.choice(_FIELDS)] = rng.choice(_NASTY_VALUES)
    return orjson.dumps(event)


def _nasty_text(event: dict[str, Any], rng: Random) -> bytes:
    field, text = rng.choice(_FIELDS), rng.choice(_NASTY_TEXTS)
    event[field] = [text] * rng.randint(1, 3) if field in ("bullets", "images") else text
    return orjson.dumps(event)


def _bits_flipped(event: dict[str, Any], rng: Random) -> bytes:
    value = bytearray(orjson.dumps(event))
    for _ in range(rng.randint(1, 8)):
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
    return bytes(value)


def _cut_short(event: dict[str, Any], rng: Random) -> bytes:
    value = orjson.dumps(event)
    return value[: rng.randrange(len(value))]


def _bytes_inserted(event: dict[str, Any], rng: Random) -> bytes:
    value = orjson.dumps(event)
    at = rng.randrange(len(value))
    return value[:at] + rng.randbytes(rng.randint(1, 30)) + value[at:]


def _pieces_swapped(event: dict[str, Any], rng: Random) -> bytes:
    value = orjson.dumps(event)
    first, second = sorted(rng.sample(range(len(value)), 2))
    return value[:first] + value[second:] + value[first:second]


def _other_encoding(event: dict[str, Any], rng: Random) -> bytes:
    encoding = rng.choice(("utf-16", "utf-32", "shift_jis", "latin-1", "utf-8-sig"))
    return orjson.dumps(event).decode().encode(encoding, "replace")


def _large(event: dict[str, Any], rng: Random) -> bytes:
    event["description"] = rng.choice(("word ", "<p>", "&amp;", "説明", "\\")) * 60_000
    return orjson.dumps(event)


_Mutation = Callable[[dict[str, Any], Random], bytes | None]
_MUTATIONS: dict[_Mutation, float] = {
    _unchanged: 10,
    _tombstone: 1,
    _raw: 6,
    _field_dropped: 8,
    _field_of_wrong_type: 20,
    _nasty_text: 20,
    _bits_flipped: 15,
    _cut_short: 8,
    _bytes_inserted: 6,
    _pieces_swapped: 4,
    _other_encoding: 2,
    _large: 0.1,
}
_KINDS = list(_MUTATIONS)
_WEIGHTS = list(_MUTATIONS.values())
