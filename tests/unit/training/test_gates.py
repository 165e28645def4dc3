from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from training.gates import Answers, GateResult, Gates, judge, worse_by_chance


def answers(right: list[int] | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Answers:
    """Scores that are as sure as they are right: no calibration error."""
    found = np.array(right, dtype=bool)
    return Answers(found, found.astype(np.float32), np.ones(len(found), dtype=bool), 0.5)


def judged(
    old: Answers, new: Answers, departments: list[str], gates: Gates, *, variants: int = 1
) -> list[GateResult]:
    """Each ``variants`` products one after the other are of one text."""
    texts = np.arange(len(departments)) // variants
    return judge(old, new, departments, texts, 0.9, gates)


def failed(
    old: Answers, new: Answers, departments: list[str], gates: Gates, *, variants: int = 1
) -> list[str]:
    found = judged(old, new, departments, gates, variants=variants)
    return [each.gate for each in found if not each.passed]


def test_the_same_answers_pass() -> None:
    same = answers([1, 0, 1, 1])
    assert failed(same, same, ["a", "a", "b", "b"], Gates()) == []


def test_one_product_less_is_worse_overall() -> None:
    old, new = answers([1] * 1000), answers([1] * 999 + [0])
    departments = ["a"] * 1000
    assert failed(old, new, departments, Gates(calibration=1)) == ["category accuracy"]
    assert failed(old, new, departments, Gates(calibration=1, overall=0.001)) == []


def test_a_department_may_not_pay_for_the_others() -> None:
    old = answers([1] * 100 + [0] * 100)
    new = answers([1] * 60 + [0] * 40 + [1] * 100)
    departments = ["a"] * 100 + ["b"] * 100
    assert failed(old, new, departments, Gates()) == ["department a"]
    told = next(r for r in judged(old, new, departments, Gates()) if not r.passed)
    assert "1.0000 before, 0.6000 now, 0.9900 is allowed, 100 products" in str(told)
    assert "by chance" in str(told)


def test_a_few_products_of_a_department_may_turn_by_chance() -> None:
    old = answers([1, 1, 1, 0] + [0] * 96)
    new = answers([0, 1, 1, 0] + [1] * 96)
    assert failed(old, new, ["a"] * 4 + ["b"] * 96, Gates()) == []


def test_variants_of_a_department_turn_together() -> None:
    """Eight products that turn are no chance where each has a text of its own."""
    old = answers([1] * 8 + [0] * 88)
    new = answers([0] * 8 + [1] * 88)
    departments = ["a"] * 8 + ["b"] * 88
    assert failed(old, new, departments, Gates()) == ["department a"]
    told = next(each for each in judged(old, new, departments, Gates()) if not each.passed)
    assert "8 texts lost, 0 won" in told.note
    assert failed(old, new, departments, Gates(), variants=4) == []


def test_a_text_of_many_products_weighs_as_much() -> None:
    """One that turns wrong is chance; that ten small ones turn right does not make up for it."""
    old, new = answers([1] * 90 + [0] * 510), answers([0] * 60 + [1] * 540)
    departments = ["a"] * 100 + ["b"] * 500
    texts = np.array([*range(6)] * 10 + [*range(6, 546)])
    found = judge(old, new, departments, texts, 0.9, Gates())
    told = next(each for each in found if each.gate == "department a")
    # Six texts of ten products each are lost, ten of one are won: 60 to 10.
    assert "6 texts lost, 10 won" in told.note
    ways = sum(
        comb(6, big) * comb(10, small)
        for big in range(7)
        for small in range(11)
        if 10 * big + small <= 10
    )
    assert f"probability {ways / 2**16:.2g}," in told.note


def test_scores_that_no_longer_say_how_sure_they_are() -> None:
    old = answers([1] * 50 + [0] * 50)
    new = replace(old, scores=np.ones(100, dtype=np.float32))
    assert failed(old, new, ["a"] * 100, Gates()) == ["calibration error"]


def test_what_is_assigned_must_be_right_as_often() -> None:
    right = np.arange(100) < 80
    old = replace(answers(right), assigned=np.arange(100) < 85)
    new = replace(old, assigned=np.ones(100, dtype=bool))
    assert failed(old, new, ["a"] * 100, Gates()) == ["accuracy among the assigned"]
    # Above the target it may come down to it.
    sure = replace(old, assigned=np.arange(100) < 80)
    assert failed(sure, old, ["a"] * 100, Gates(calibration=0)) == []


def test_after_a_release_that_assigned_nothing_the_target_alone_counts() -> None:
    right = np.arange(100) < 80
    old = replace(answers(right), assigned=np.zeros(100, dtype=bool))
    wrong = replace(old, assigned=np.arange(100) >= 80)
    assert failed(old, wrong, ["a"] * 100, Gates()) == ["accuracy among the assigned"]
    told = [str(each) for each in judged(old, wrong, ["a"] * 100, Gates()) if not each.passed]
    assert "0.8900 is allowed, 20 products (nothing was assigned before)" in told[0]
    sure = replace(old, assigned=np.arange(100) < 60)
    assert failed(old, sure, ["a"] * 100, Gates()) == []


@pytest.mark.parametrize("now", [0, 1, 49])
def test_as_much_must_be_assigned(now: int) -> None:
    old = replace(answers([1] * 100), assigned=np.arange(100) < 60)
    new = replace(old, assigned=np.arange(100) < now)
    assert failed(old, new, ["a"] * 100, Gates()) == ["share assigned"]
    assert failed(old, new, ["a"] * 100, Gates(coverage=0.6)) == []
    many = replace(old, assigned=np.arange(100) < 80)
    assert failed(many, replace(old, assigned=np.arange(100) < 70), ["a"] * 100, Gates()) == []


def test_neither_release_need_assign_anything() -> None:
    none = replace(answers([1, 0, 1, 1]), assigned=np.zeros(4, dtype=bool))
    gates = [each.gate for each in judged(none, none, ["a"] * 4, Gates())]
    assert failed(none, none, ["a"] * 4, Gates()) == []
    assert "share assigned" in gates
    assert "accuracy among the assigned" not in gates


def test_attributes() -> None:
    old = answers([1, 1])
    assert failed(old, replace(old, attribute_f1=0.49), ["a", "a"], Gates()) == [
        "attribute micro F1"
    ]
    assert failed(old, replace(old, attribute_f1=None), ["a", "a"], Gates()) == []


@pytest.mark.parametrize(
    ("lost", "won", "probability"),
    [(0, 0, 1), (1, 0, 0.5), (1, 1, 0.75), (3, 0, 0.125), (0, 5, 1), (2, 2, 11 / 16)],
)
def test_chance_of_losses(lost: int, won: int, probability: float) -> None:
    assert worse_by_chance(np.repeat([-1, 1, 0], [lost, won, 5])) == pytest.approx(probability)


def test_chance_of_texts_of_several_sizes() -> None:
    """Of the 8 ways that 1, 2 and 4 can turn, gains of 0, 1 and 2 are as great a loss as 4 - 2."""
    assert worse_by_chance(np.array([2, -4, -1])) == pytest.approx(3 / 8)
    assert worse_by_chance(np.array([-500] + [1] * 10)) == pytest.approx(1 / 2)


def test_chance_of_many_changes() -> None:
    assert 0.4 < worse_by_chance(np.repeat([-1, 1], 5000)) < 0.6
    assert worse_by_chance(np.repeat([-1, 1], [5300, 4700])) < 1e-8
