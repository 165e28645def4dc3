"""Seller's text to plain text: the same characters for training and for serving.

Text is hostile until it has passed here. Every step is linear in what is read of it, and no more
is read than ``_READ_FACTOR * max_chars`` characters.
"""

from __future__ import annotations

import html
import re
import unicodedata

__all__ = ["normalise"]

# HTML spends most of a long description on markup: read on, but not without end.
_READ_FACTOR = 4
# Each pass undoes one level of escaping; nobody escapes five times in good faith.
_MAX_PASSES = 4
# UAX 15, D4 (stream-safe text): no writing system needs longer runs of combining marks, and
# putting a run in canonical order is quadratic in its length.
_MAX_MARKS = 30

_PRINTABLE_ASCII = bytes(range(0x20, 0x7F))

# Soft hyphen, zero-width, bidirectional and invisible format characters, language tags.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

# Four marks beyond U+0300 have combining class 0 themselves but decompose to nothing else.
_MARKS = frozenset(
    chr(code) for code in range(0x300, 0x1E950) if unicodedata.combining(chr(code))
) | frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
# Two classes: one that holds characters beyond U+FFFF is a hundred times slower.
_MARK = "(?:[{}]|[{}])".format(
    "".join(sorted(mark for mark in _MARKS if mark <= "\uffff")),
    "".join(sorted(mark for mark in _MARKS if mark > "\uffff")),
)
_LONG_MARKS = re.compile(f"({_MARK}{{{_MAX_MARKS}}}){_MARK}++")

# Where compatibility characters live that product texts use: full width, units, circled digits,
# ligatures. Replacing runs of them first leaves most texts normalised: NFKC over a whole Japanese
# text costs a hundred times its quick check.
_COMPATIBILITY = re.compile(
    "[\u00a0-\u00be\u2002-\u200a\u2011\u2017\u2024-\u2037\u203c\u2047-\u2049\u2057\u2070-\u209c"
    "\u20a8\u2100-\u218b\u2460-\u24ea\u3000\u309b\u309c\u3200-\u33ff\uf900-\ufaff\ufb00-\ufb06"
    "\uff01-\uffee]+"
)

# Only what ends in a semicolon: "Art&center" is a name, not a cent sign.
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{1,31});")

# Only elements of HTML: "<NIKE>" and "＜限定＞" are text.
_ELEMENTS = (
    "a|abbr|acronym|address|applet|area|article|aside|audio|b|base|basefont|bdi|bdo|bgsound|"
    "big|blockquote|body|br|button|canvas|caption|center|cite|code|col|colgroup|data|"
    "datalist|dd|del|details|dfn|dialog|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|"
    "font|footer|form|frame|frameset|h1|h2|h3|h4|h5|h6|head|header|hgroup|hr|html|i|iframe|"
    "img|input|ins|kbd|label|legend|li|link|main|map|mark|marquee|menu|meta|meter|nav|nobr|"
    "noframes|noscript|object|ol|optgroup|option|output|p|param|picture|pre|progress|q|rp|"
    "rt|ruby|s|samp|script|search|section|select|slot|small|source|span|strike|strong|style|"
    "sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|"
    "track|tt|u|ul|var|video|wbr"
)
# Possessive repeats, and alternatives that either succeed or stop at the next "<": linear.
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style)(?![a-z0-9])[^<>]*+>.*?(?:</\1(?![a-z0-9])[^<>]*+>?|\Z)"
    rf"|</?(?:{_ELEMENTS})(?![a-z0-9-])[^<>]*+>"
    r"|<[!?][a-z\[][^<>]*+>",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)


def normalise(text: str, max_chars: int) -> str:
    """Plain, NFKC-normalised text of at most ``max_chars`` characters.

    Entities are unescaped; tags, comments and the content of ``script`` and ``style`` become a
    space; invisible characters vanish, control characters become a space, lone surrogates U+FFFD,
    runs of white space one space; runs of combining marks are cut to 30. Then stripped and cut.
    Unescaping and stripping repeat until nothing changes; what is still changing after four
    rounds loses its ``<`` and ``&``. So ``normalise(normalise(t, n), n) == normalise(t, n)``.

    Args:
        text: any str, lone surrogates included. Of a long one the first ``4 * max_chars``
            characters are read.
        max_chars: at least 1.
    """
    if len(text) > _READ_FACTOR * max_chars:
        text = text[: _READ_FACTOR * max_chars]
        if text.rfind("<") > text.rfind(">"):
            text = text[: text.rfind("<")]  # a tag cut in two
    text = text.strip()
    if text.isascii():
        clean = not text.encode().translate(None, _PRINTABLE_ASCII)
    else:
        clean = text.isprintable() and _is_compatible(text)
    if not clean or "  " in text or _may_hold_markup(text):
        text = _fixpoint(text, max_chars)
    return text if len(text) <= max_chars else text[:max_chars].rstrip()


def _fixpoint(text: str, max_chars: int) -> str:
    for _ in range(_MAX_PASSES):
        before = text
        if _may_hold_markup(text):
            text = _ENTITY.sub(_unescape, text)
            text = _MARKUP.sub(" ", text)
        text = _plain(text, max_chars)
        # What holds no markup now is a fixpoint: the other steps are idempotent.
        if text == before or not _may_hold_markup(text):
            return text
    return " ".join(text.replace("<", " ").replace("&", " ").split())


def _may_hold_markup(text: str) -> bool:
    return ("<" in text and (">" in text or "<!--" in text)) or ("&" in text and ";" in text)


def _unescape(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def _plain(text: str, max_chars: int) -> str:
    text = " ".join(text.split())
    if not text.isprintable():
        text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
        text = " ".join(_CONTROL.sub(" ", text).split())
    if not text.isascii():
        # Cut before: what one character becomes can be 18.
        text = " ".join(_compatible(text[:max_chars]).split())
    return text[:max_chars].rstrip()


def _is_compatible(text: str) -> bool:
    # A run of 30 marks covers at least one sampled character.
    return _MARKS.isdisjoint(text[::_MAX_MARKS]) and unicodedata.is_normalized("NFKC", text)


def _compatible(text: str) -> str:
    """NFKC in linear time: runs of marks are cut to 30, before and after."""
    text = _COMPATIBILITY.sub(_nfkc, text)
    if not _MARKS.isdisjoint(text[::_MAX_MARKS]):
        text = _LONG_MARKS.sub(r"\1", text)
    # Some marks become two.
    text = unicodedata.normalize("NFKC", text)
    return text if _MARKS.isdisjoint(text[::_MAX_MARKS]) else _LONG_MARKS.sub(r"\1", text)


def _nfkc(run: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", run[0])
