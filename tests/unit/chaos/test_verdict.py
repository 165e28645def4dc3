"""That the check can fail: each kind of wrong is found, and nothing else is."""

from __future__ import annotations

import pytest

from tests.chaos.verdict import Kind, Ledger, Output, Verdict
from tests.streams import Place

# Three products of one seller, one of another, and one event that is no product.
SENT: dict[Place, bool] = {(0, 0): True, (0, 1): True, (0, 2): True, (1, 0): True, (1, 1): False}
KEYS = {(0, 0): b"a", (0, 1): b"a", (0, 2): b"a", (1, 0): b"b", (1, 1): b"b"}


def outputs() -> list[Output]:
    """Everything as it should be, in the order of the input."""
    listed = []
    for place, is_product in SENT.items():
        kinds: tuple[Kind, ...] = ("categories", "attributes") if is_product else ("dead_letters",)
        listed += [Output(kind, place, KEYS[place], place) for kind in kinds]
    return listed


def judged(found: list[Output]) -> Verdict:
    ledger = Ledger()
    for output in found:
        ledger.take(output)
    return ledger.verdict(SENT)


def of(kind: Kind, place: Place) -> Output:
    return next(out for out in outputs() if (out.kind, out.place) == (kind, place))


def test_all_there_once_and_in_order_is_clean() -> None:
    assert judged(outputs()) == Verdict()
    assert judged(outputs()).is_clean


@pytest.mark.parametrize("kind", ["categories", "attributes"])
def test_one_result_without_the_other_is_lost(kind: Kind) -> None:
    found = [out for out in outputs() if out != of(kind, (0, 1))]
    assert judged(found) == Verdict(lost=frozenset({(0, 1)}))
    assert not judged(found).is_clean


def test_an_event_without_its_dead_letter_is_lost() -> None:
    found = [out for out in outputs() if out.kind != "dead_letters"]
    assert judged(found) == Verdict(lost=frozenset({(1, 1)}))


@pytest.mark.parametrize(
    ("kind", "place"), [("categories", (0, 0)), ("attributes", (1, 0)), ("dead_letters", (1, 1))]
)
def test_an_output_that_comes_again_is_twice_and_not_out_of_order(kind: Kind, place: Place) -> None:
    again = Output(kind, place, KEYS[place], (place[0], 99))
    assert judged([*outputs(), again]) == Verdict(twice=frozenset({place}))


@pytest.mark.parametrize("kind", ["categories", "attributes"])
def test_a_result_beside_a_dead_letter_is_twice(kind: Kind) -> None:
    assert judged([*outputs(), Output(kind, (1, 1), b"b", (1, 9))]).twice == {(1, 1)}


def test_a_product_that_became_a_dead_letter_is_not_lost_but_misjudged() -> None:
    ledger = Ledger()
    ledger.take(Output("dead_letters", (1, 0), b"b", (1, 0)))
    for output in outputs():
        if output.place != (1, 0):
            ledger.take(output)
    assert ledger.verdict(SENT).is_clean
    assert ledger.misjudged(SENT) == 1


def test_an_output_behind_a_later_one_of_its_key_is_out_of_order() -> None:
    late = of("attributes", (0, 1))
    found = [*(out for out in outputs() if out != late), late]
    assert judged(found) == Verdict(out_of_order=frozenset({(0, 1)}))


def test_outputs_of_different_keys_have_no_order() -> None:
    assert judged(sorted(outputs(), key=lambda out: (-out.place[0], out.place[1]))).is_clean


def test_an_output_of_an_event_that_was_never_sent_is_strange() -> None:
    found = [*outputs(), Output("categories", (7, 7), b"c", (0, 50))]
    assert judged(found) == Verdict(strange=frozenset({(7, 7)}))


def test_nothing_came_out_is_all_lost() -> None:
    assert judged([]) == Verdict(lost=frozenset(SENT))


def test_what_either_reader_found_wrong_is_wrong() -> None:
    both = Verdict(lost=frozenset({(0, 0)})) | Verdict(twice=frozenset({(0, 1)}))
    assert both == Verdict(lost=frozenset({(0, 0)}), twice=frozenset({(0, 1)}))


def test_a_description_says_where_the_outputs_lie() -> None:
    ledger = Ledger()
    ledger.take(Output("categories", (0, 3), b"a", (5, 8)))
    assert "'categories': [(5, 8)]" in ledger.describe((0, 3))
    assert "no output" in ledger.describe((0, 4))
