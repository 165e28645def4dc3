import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from models.text import normalise

PIECES = st.sampled_from(
    [
        *"<>&;/!-'\" ab\t\n",
        *"\u200b\u00a0\u3000\u0301\u0327\u3099\uff1c\uff1e\uff06\ufdfa\u1100\u1161\ud800\u00a8\u0958\u0f73",
        "&amp;",
        "&lt;",
        "&gt;",
        "&#60;",
        "&#x200b;",
        "&#1;",
        "amp;",
        "lt;",
        "<b>",
        "</p>",
        "<script>",
        "</script>",
        "<!--",
        "-->",
        "ﾊﾞ",
        "カ\u3099",
        "\u0301\u0327" * 20,
    ]
)
HOSTILE = st.lists(PIECES, max_size=40).map("".join)


@given(st.one_of(st.text(max_size=200), HOSTILE), st.integers(1, 60))
@example("<a <b>>" * 9, 60)
@example("<" * 20 + "b>" * 20, 60)
@example("&am&#1;p;lt;b>", 60)
@example("\u0958" + "\u0301" * 31, 60)
def test_normalised_text_is_clean_and_stays(text: str, max_chars: int) -> None:
    plain = normalise(text, max_chars)
    assert normalise(plain, max_chars) == plain
    assert len(plain) <= max_chars
    assert plain == " ".join(plain.split())
    assert unicodedata.is_normalized("NFKC", plain)
    plain.encode()  # no lone surrogate
    assert not any(unicodedata.category(character) == "Cc" for character in plain)


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="<>&;"), max_size=100))
def test_text_without_markup_is_nfkc_with_single_spaces(text: str) -> None:
    assert normalise(text, 2_000) == " ".join(unicodedata.normalize("NFKC", text).split())
