"""What goes wrong in sellers' texts: typos, shuffled words, capitals, mark-up, odd widths."""

from __future__ import annotations

import html
from random import Random

__all__ = ["full_width", "half_width_katakana", "mark_up", "shuffle_words", "typo"]

# The characters of U+FF01..U+FF5E stand for ASCII 0x21..0x7E; NFKC folds them back.
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_KATAKANA = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン"
)
_HALF_KATAKANA = "ｱｲｳｴｵｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾅﾆﾇﾈﾉﾊﾋﾌﾍﾎﾏﾐﾑﾒﾓﾔﾕﾖﾗﾘﾙﾚﾛﾜﾝ"
_TO_HALF = str.maketrans(_KATAKANA + "ーッャュョァィゥェォ", _HALF_KATAKANA + "ｰｯｬｭｮｧｨｩｪｫ")


def typo(text: str, rng: Random) -> str:
    """One character dropped, doubled or swapped with the next; short texts stay as they are."""
    if len(text) < 4:
        return text
    at = rng.randrange(1, len(text) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def shuffle_words(text: str, rng: Random) -> str:
    """The words in any order."""
    words = text.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def full_width(text: str) -> str:
    """ASCII as its full-width forms, as Japanese input methods write it."""
    return text.translate(_FULL_WIDTH)


def half_width_katakana(text: str) -> str:
    """Katakana without voiced marks as its half-width forms, as old shop systems write it."""
    return text.translate(_TO_HALF)


def mark_up(sentences: list[str], rng: Random) -> str:
    """The sentences as a piece of HTML."""
    escaped = [html.escape(sentence) for sentence in sentences]
    if rng.random() < 0.5:
        return "".join(f"<p>{sentence}</p>" for sentence in escaped)
    items = "".join(f"<li>{sentence}</li>" for sentence in escaped)
    return f'<div class="item-detail"><ul>{items}</ul></div>'
