import unicodedata

import pytest

from models import text as text_module
from models.text import normalise

MAX = 1_000


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("", ""),
        ("   ", ""),
        ("Red shoe", "Red shoe"),
        (" Red  shoe\t\n", "Red shoe"),
        ("ＲＥＤ　ｓｈｏｅ", "RED shoe"),
        ("ﾊﾞｯｸﾞ ㎝ ①", "バッグ cm 1"),
        ("か\u3099", "が"),
        ("e\u0301", "é"),
        ("<p>Red</p><p>shoe</p>", "Red shoe"),
        ('<IMG SRC="a.png" onerror=alert(1)>shoe', "shoe"),
        ("a<script>var x = '<b>';</script >b", "a b"),
        ("a<STYLE type=x>p{}</style>b<script>unclosed", "a b"),
        ("a<!-- c <b> -->b<!-- unclosed", "a b"),
        ("<!DOCTYPE html><?xml version=1?>shoe", "shoe"),
        ("Tom &amp; Jerry &quot;x&quot; &#9829; &#x2665;", 'Tom & Jerry "x" ♥ ♥'),
        ("&lt;b&gt;Red&lt;/b&gt;", "Red"),
        ("&amp;lt;b&amp;gt;Red", "Red"),
        ("＜b＞Red", "Red"),
        ("<\u200bb>Red", "Red"),
        ("H&M; R&D, Art&center", "H&M; R&D, Art&center"),
        ("size < 5 and > 3, <NIKE> ＜限定＞", "size < 5 and > 3, <NIKE> <限定>"),
        (
            "zero\u200bwidth soft\u00adhyphen \u202ebidi\u202c \ufeffbom",
            "zerowidth softhyphen bidi bom",
        ),
        ("a\x00b\x1fc\x7fd\x85e\u2028f", "a b c d e f"),
        ("a\ud800b\udfff", "a\ufffdb\ufffd"),
        ("&#0; &#xd800; &#x110000; &nosuch;", "\ufffd \ufffd \ufffd &nosuch;"),
        ("👩\u200d👩 🎉", "👩👩 🎉"),
    ],
)
def test_normalise(raw: str, plain: str) -> None:
    assert normalise(raw, MAX) == plain
    assert normalise(plain, MAX) == plain


def test_plain_text_comes_back_as_it_is() -> None:
    for plain in ("A red shoe, size 5.", "内ポケット2つが付き、機能的です。"):
        assert normalise(plain, MAX) is plain


def test_cut_to_max_chars() -> None:
    assert normalise("abc def", 4) == "abc"
    assert normalise("\ufdfa" * 10, 7) == unicodedata.normalize("NFKC", "\ufdfa")[:7]
    assert normalise("<b></b>" * 100 + "x", 10) == ""


def test_what_never_settles_loses_its_markup() -> None:
    deep = "&" + "amp;" * 50 + "lt;b"
    plain = normalise(deep, MAX)
    assert "&" not in plain
    assert "<" not in plain
    assert normalise(plain, MAX) == plain


def test_runs_of_marks_are_cut() -> None:
    plain = normalise("a" + "\u0301\u0327" * 400 + "b", MAX)
    assert len(plain) == 1 + 30 - 1 + 1  # "a" and one mark became "á"
    assert normalise(plain, MAX) == plain


@pytest.mark.parametrize("before", range(31))
def test_runs_of_marks_that_become_two_are_cut(before: int) -> None:
    plain = normalise("A" * before + "x" + "\u0344" * 20 + "z", MAX)
    assert len(plain) == before + 1 + 30 + 1
    assert normalise(plain, MAX) == plain


def test_the_marks_are_all_characters_that_decompose_to_marks_alone() -> None:
    complete = {
        chr(code)
        for code in range(0x110000)
        if all(unicodedata.combining(part) for part in unicodedata.normalize("NFKD", chr(code)))
    }
    assert complete == text_module._MARKS


def test_nfkc_makes_nothing_that_an_earlier_step_removes() -> None:
    """What lets a text without markup end after one pass."""
    for code in range(0xE000, 0x110000):
        composed = unicodedata.normalize("NFKC", chr(code))
        if composed != chr(code):
            assert not text_module._INVISIBLE.search(composed)
            assert not text_module._CONTROL.search(composed)
