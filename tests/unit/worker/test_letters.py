"""Which dead letters are sent again, where, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.factories import record
from worker.event_sources import OutEvent
from worker.events import cut_dead_letter, dead_letter
from worker.lanes import DeadLetter
from worker.letters import Choice, Letter, Tally, read_letter
from worker.original_headers import REPLAYS
from worker.tolerant_parser import Fault

CHOICE = Choice(origins=frozenset({"products", "past"}))
NOON_MS = 1_700_000_000_000  # 2023-11-14


def on_topic(letter: DeadLetter) -> Letter | None:
    """The letter, written and read back."""
    return read_letter(
        record(letter.value, key=letter.key, timestamp=NOON_MS, headers=tuple(letter.headers))
    )


def letter(*headers: tuple[str, bytes | None], topic: str = "products") -> Letter:
    event = record(b"v", key=b"k", topic=topic, headers=headers)
    found = on_topic(dead_letter(event, "model_failed", "d", "shop/1"))
    assert found is not None
    return found


def test_an_event_goes_back_as_it_was_with_a_count() -> None:
    sent = (("trace", b"1"), ("reason", None), ("trace", b"2"))
    event = Tally().choose(letter(*sent, topic="past"), CHOICE)
    assert event == OutEvent(b"k", b"v", [*sent, (REPLAYS, b"1")], "past")


def test_a_batch_that_could_not_be_taken_apart_is_no_event() -> None:
    found = on_topic(dead_letter(record(b"raw", key=None), "bad_batch", "d", "r/1"))
    tally = Tally()
    assert tally.choose(found, CHOICE) is None
    assert tally.cut == 1


def test_a_letter_that_no_client_wrote_is_none() -> None:
    whole = dead_letter(record(), "model_failed", "d", "r/1")
    written = record(headers=tuple(whole.headers))
    assert read_letter(written) is not None
    assert read_letter(replace(written, checksum=Fault("bad_header", "d"))) is None


def test_a_tombstone_goes_back_as_one() -> None:
    found = on_topic(dead_letter(record(None, key=None), "tombstone", "d", "r/1"))
    event = Tally().choose(found, CHOICE)
    assert event is not None
    assert (event.key, event.value) == (None, None)


@pytest.mark.parametrize(
    ("choice", "is_chosen"),
    [
        (CHOICE, True),
        (replace(CHOICE, reasons=frozenset({"model_failed", "tombstone"})), True),
        (replace(CHOICE, reasons=frozenset({"tombstone"})), False),
        (replace(CHOICE, releases=frozenset({"shop/1"})), True),
        (replace(CHOICE, releases=frozenset({"shop/2"})), False),
        (replace(CHOICE, reasons=frozenset({"model_failed"}), releases=frozenset({"x"})), False),
    ],
)
def test_by_reason_and_release(choice: Choice, is_chosen: bool) -> None:
    tally = Tally()
    assert (tally.choose(letter(), choice) is not None) == is_chosen
    assert tally.chosen == ({("model_failed", "shop/1", "2023-11-14"): 1} if is_chosen else {})
    assert tally.num_refused == 0


@pytest.mark.parametrize(("count", "is_chosen"), [(b"2", True), (b"3", False), (b"99", False)])
def test_what_was_sent_back_often_enough_is_left_out(count: bytes, is_chosen: bool) -> None:
    tally = Tally()
    assert (tally.choose(letter((REPLAYS, count)), CHOICE) is not None) == is_chosen
    assert tally.worn == (not is_chosen)
    assert tally.num_refused == 0


def test_a_letter_that_was_cut_is_refused() -> None:
    event = record(b"v" * 100, key=b"k")
    cut = cut_dead_letter(dead_letter(event, "invalid_json", "d", "r/1"), 50)
    full = record(b"v", headers=(("large", b"x" * 40_000),))
    tally = Tally()
    for each in (cut, dead_letter(full, "invalid_json", "d", "r/1")):
        assert tally.choose(on_topic(each), CHOICE) is None
    assert (tally.cut, tally.num_refused) == (2, 2)


def test_a_seller_cannot_make_a_letter_look_cut_or_come_from_elsewhere() -> None:
    forged = letter(("value-cut-to", b"1"), ("headers-left-out", b"1"), ("input-topic", b"evil"))
    event = Tally().choose(forged, CHOICE)
    assert event is not None
    assert event.topic == "products"


def test_another_topic_is_refused_unless_all_go_to_one() -> None:
    tally = Tally()
    assert tally.choose(letter(topic="former"), CHOICE) is None
    assert (tally.foreign, tally.num_refused) == ({"former": 1}, 1)
    event = tally.choose(letter(topic="former"), replace(CHOICE, to_topic="products"))
    assert event is not None
    assert event.topic == "products"


def test_a_record_that_no_worker_wrote_is_counted() -> None:
    tally = Tally()
    assert tally.choose(read_letter(record(b"x", headers=(("reason", b"r"),))), CHOICE) is None
    assert (tally.unreadable, tally.num_refused) == (1, 1)
