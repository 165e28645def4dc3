"""Each kind of bad input: handled, or a dead letter with a clear reason; never a crash."""

import orjson
import pytest

from models.product import MAX_TEXT_CHARS
from tests.factories import product_event, record
from worker.errors import EventError
from worker.events import dead_letter, parse_event


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        (None, "tombstone", "null"),
        (b"", "invalid_json", "character"),
        (b"{", "invalid_json", "character"),
        (b'{"product_id": "\xff"}', "invalid_utf8", "byte 16"),
        (b'{"product_id": "x", "title": "\\ud800"}', "invalid_json", "surrogate"),
        (b"[" * 100_000, "invalid_json", "limit"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "invalid_json", "limit"),
        (b"NaN", "invalid_json", "character"),
        (b"[]", "not_an_object", "list"),
        (b'"text"', "not_an_object", "str"),
        (b"{}", "missing_field", "product_id"),
        (b'{"product_id": "x"}', "missing_field", "title"),
        (product_event(product_id=""), "bad_id", "0 characters"),
        (product_event(product_id="x" * 513), "bad_id", "513 characters"),
        (product_event(product_id=1.5), "wrong_type", "product_id"),
        (product_event(product_id=True), "wrong_type", "bool"),
        (product_event(title=["x"]), "wrong_type", "title"),
        (product_event(description=5), "wrong_type", "description"),
        (product_event(description=False), "wrong_type", "description"),
        (product_event(bullets="x"), "wrong_type", "bullets"),
        (product_event(bullets={}), "wrong_type", "bullets"),
        (product_event(bullets=["a", 1]), "wrong_type", "bullets[1]"),
        (product_event(bullets=["a"] * 65), "too_long", "65 entries"),
        (product_event(images=["a"] * 65), "too_long", "65 entries"),
        (product_event(images="a"), "wrong_type", "images"),
        (product_event(image=1), "wrong_type", "image"),
        (product_event(locale=1), "wrong_type", "locale"),
        (product_event(locale="x" * 36), "too_long", "36 characters"),
        (product_event(version=[]), "wrong_type", "version"),
        (product_event(claimed_category=1), "wrong_type", "claimed_category"),
        (product_event(claimed_category="x" * 513), "too_long", "claimed_category"),
        (product_event(title=""), "no_text", "empty"),
        (product_event(title="<b></b> \u200b"), "no_text", "empty"),
    ],
)
def test_a_bad_event_has_a_reason_and_says_what_is_wrong(value, reason, says):
    with pytest.raises(EventError) as raised:
        parse_event(value)
    assert raised.value.reason == reason
    assert says in raised.value.detail


def test_html_control_characters_and_width_are_normalised():
    product = parse_event(
        product_event(title="<b>Ｒed</b>\x00 dress &amp; belt", description="a\n\n b\tc")
    )
    assert product.title == "Red dress & belt"
    assert product.description == "a b c"


def test_a_description_of_a_megabyte_is_cut():
    product = parse_event(product_event(description="long " * 200_000))
    assert len(product.description) <= MAX_TEXT_CHARS


def test_the_last_of_a_duplicate_key_counts():
    assert parse_event(b'{"product_id":"a","title":"one","title":"two"}').title == "two"


def test_absent_and_null_fields_are_the_same():
    nulls = dict.fromkeys(
        ("version", "locale", "description", "bullets", "images", "image", "claimed_category")
    )
    assert parse_event(product_event(**nulls)) == parse_event(product_event())


def test_an_empty_title_is_taken_where_other_text_is_there():
    assert parse_event(product_event(title="", bullets=["soft", ""])).bullets == ("soft",)


def test_one_image_or_many():
    assert parse_event(product_event(image="a")).images == ("a",)
    assert parse_event(product_event(images=["a", "b"], image="c")).images == ("a", "b")


def test_a_dead_letter_keeps_the_event_and_names_its_place():
    letter = dead_letter(
        record(b"\xff\x00", key=None, topic="in", partition=3, offset=9), "invalid_utf8", "d", "r/1"
    )
    headers = dict(letter.headers)
    assert letter.value == b"\xff\x00"
    assert letter.key is None
    assert headers["event-id"] == b"dead-letter:in:3:9"
    assert headers["reason"] == b"invalid_utf8"
    assert orjson.loads(headers["input-offset"]) == 9


@pytest.mark.parametrize("start", ["", "a", "ab"])
def test_a_long_detail_is_cut_between_characters(start):
    letter = dead_letter(record(), "model_failed", start + "革" * 1_000, "r/1")
    detail = dict(letter.headers)["detail"].decode()
    assert detail == start + "革" * (len(detail) - len(start))
    assert 1_000 < len(detail.encode()) <= 1_024
