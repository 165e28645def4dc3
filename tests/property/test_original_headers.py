"""Whatever headers a seller sends: none is taken for ours; what is kept comes back as it was."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.factories import record
from worker.events import bare_dead_letter, dead_letter
from worker.original_headers import LEFT_OUT, ORIGINAL, REPLAYS, num_replays, replayed, restore

OURS = {
    "reason", "detail", "event-id", "input-topic", "input-partition", "input-offset",
    "input-timestamp", "release", "schema", "tombstone",
}  # fmt: skip

names = st.text(max_size=30) | st.sampled_from(
    [*OURS, LEFT_OUT, ORIGINAL, ORIGINAL + "reason", "original-original-x", REPLAYS, "key-cut-to"]
)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=60)), max_size=12)
large = st.lists(st.tuples(names, st.none() | st.binary(max_size=30_000)), max_size=8)


def letter_of(given_headers):
    event = record(b"{", headers=tuple(given_headers))
    return dead_letter(event, "invalid_json", "detail", "r/1")


@given(headers)
@example([("reason", b"none at all"), ("original-reason", b"x"), ("reason", None)])
def test_sellers_headers_come_back_and_never_stand_for_ours(sent):
    letter = letter_of(sent)
    ours = [(name, value) for name, value in letter.headers if not name.startswith(ORIGINAL)]
    assert dict(ours).keys() == OURS - {"tombstone"}
    assert len(dict(ours)) == len(ours)
    assert dict(ours)["reason"] == b"invalid_json"
    assert letter.headers[: len(ours)] == ours
    assert restore(letter.headers) == sent


@given(large)
def test_what_is_kept_is_bounded_and_what_is_missing_is_counted(sent):
    letter = letter_of(sent)
    kept = restore(letter.headers)
    size = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    assert size < 36 * 1024
    left_out = int(dict(letter.headers).get(LEFT_OUT, b"0"))
    assert len(kept) + left_out == len(sent)
    rest = iter(sent)
    assert all(header in rest for header in kept), "in their order"


@given(large)
def test_a_letter_that_must_shrink_loses_its_events_headers_first(sent):
    letter = letter_of(sent)
    bare = bare_dead_letter(letter)
    if not restore(letter.headers):
        assert bare is None
        return
    assert (bare.key, bare.value) == (letter.key, letter.value)
    assert restore(bare.headers) == []
    assert int(dict(bare.headers)[LEFT_OUT]) == len(sent)
    assert bare_dead_letter(bare) is None


@given(headers, st.integers(1, 5))
def test_replays_are_counted_once_whatever_was_there(sent, times):
    first = num_replays(sent)
    again = sent
    for _ in range(times):
        again = replayed(again)
    assert num_replays(again) == first + times
    assert [name for name, _ in again].count(REPLAYS) == 1
    others = [header for header in sent if header[0] != REPLAYS]
    assert again[:-1] == others


@given(st.none() | st.binary(max_size=12))
def test_a_replay_count_that_is_none_counts_as_none(value):
    found = num_replays([(REPLAYS, value)])
    assert 0 <= found < 10**9
    assert found == 0 or value.strip() == value
