"""Whatever bytes a seller sends: a product, or an error with a reason; never anything else."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from models.product import MAX_TEXT_CHARS, Product
from tests.factories import record
from worker.errors import EventError
from worker.events import cut_dead_letter, dead_letter, parse_event

REASONS = {
    "tombstone", "invalid_utf8", "invalid_json", "not_an_object", "missing_field", "wrong_type",
    "too_long", "bad_id", "no_text",
}  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    ["product_id", "title", "description", "bullets", "images", "image", "locale", "version",
     "claimed_category", "other"]
)  # fmt: skip


def outcome(value):
    try:
        return parse_event(value)
    except EventError as error:
        assert error.reason in REASONS
        assert error.detail
        return error


@given(st.none() | st.binary(max_size=300))
def test_any_bytes_are_a_product_or_a_reason(value):
    assert isinstance(outcome(value), Product | EventError)


@given(st.dictionaries(fields, json_values, max_size=10))
def test_any_object_is_a_product_or_a_reason(raw):
    try:
        value = orjson.dumps(raw)
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return
    assert isinstance(outcome(value), Product | EventError)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)
def test_a_products_text_is_normalised_and_bounded(title, description):
    found = outcome(orjson.dumps({"product_id": 7, "title": title, "description": description}))
    if isinstance(found, EventError):
        assert found.reason == "no_text"
        return
    assert found.product_id == "7"
    for text in (found.title, found.description):
        assert len(text) <= MAX_TEXT_CHARS
        assert text == text.strip()
        assert "\n" not in text


@given(st.binary(max_size=3_000), st.binary(max_size=3_000), st.integers(16, 4_000))
def test_a_cut_dead_letter_fits_and_says_what_is_missing(key, value, max_bytes):
    letter = dead_letter(record(value, key=key), "invalid_json", "detail", "r/1")
    cut = cut_dead_letter(letter, max_bytes)
    headers = dict(cut.headers)
    assert len(cut.key) + len(cut.value) <= max(max_bytes, len(key) + len(value))
    assert value.startswith(cut.value)
    if cut.value != value:
        assert len(cut.key) + len(cut.value) <= max_bytes
        assert int(headers["value-length"]) == len(value)
        assert len(headers["value-sha256"]) == 64
