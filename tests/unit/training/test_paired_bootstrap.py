from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.metrics import accuracy, label_measures, macro_f1
from training.paired_bootstrap import attribute_figures, category_figures, intervals

RANDOM = np.random.default_rng(3)
TRUE = RANDOM.integers(0, 6, 300)
GIVEN = np.where(RANDOM.random(300) < 0.7, TRUE, RANDOM.integers(0, 8, 300))
LABELS = [RANDOM.permutation(9)[: RANDOM.integers(0, 4)].tolist() for _ in range(300)]
FOUND = [[row for row in range(9) if (row in rows) != (RANDOM.random() < 0.1)] for rows in LABELS]


ALL = np.ones(8, dtype=np.bool_)


def test_figures_are_those_of_the_measures() -> None:
    ones = np.ones(300)
    names = [str(row) for row in TRUE], [str(row) for row in GIVEN]
    found = category_figures(TRUE, GIVEN, ALL)(ones)
    assert found.tolist() == pytest.approx([accuracy(*names), macro_f1(*names)])
    wanted = label_measures(
        *([[str(row) for row in rows] for rows in each] for each in (LABELS, FOUND))
    )
    found = attribute_figures(LABELS, FOUND, np.ones(9, dtype=np.bool_))(ones)
    assert found.tolist() == pytest.approx([wanted.micro_f1, wanted.macro_f1])


def test_a_product_drawn_twice_counts_twice() -> None:
    weights = np.zeros(300)
    weights[:100] = 2
    twice = category_figures(TRUE, GIVEN, ALL)(weights)
    assert twice.tolist() == category_figures(TRUE[:100], GIVEN[:100], ALL)(np.ones(100)).tolist()


def test_macro_f1_is_over_classes_that_could_be_learned() -> None:
    trained = np.array([True, True, False, True])
    true, given = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    accuracy, macro = category_figures(true, given, trained)(np.ones(4))
    assert accuracy == 2 / 4
    assert macro == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert category_figures(true, given, ~ALL[:4])(np.ones(4)).tolist() == [0.5, 0]


def test_labels_that_cannot_be_given_are_missed() -> None:
    trained = np.array([True, False])
    micro, macro = attribute_figures([[0, -1], [1]], [[0], [1]], trained)(np.ones(2))
    assert micro == 2 * 2 / 5
    assert macro == 1


def test_an_interval_of_a_difference() -> None:
    better, worse = category_figures(TRUE, TRUE, ALL), category_figures(TRUE, GIVEN, ALL)
    found = intervals(lambda weights: better(weights) - worse(weights), np.arange(300), rounds=200)
    share = float((TRUE != GIVEN).mean())
    assert found[0].figure == pytest.approx(share)
    error = 1.96 * (share * (1 - share) / 300) ** 0.5
    assert found[0].low == pytest.approx(share - error, abs=error / 2)
    assert found[0].high == pytest.approx(share + error, abs=error / 2)
    same = intervals(lambda weights: worse(weights) - worse(weights), np.arange(300), rounds=50)
    assert same[0] == same[1]
    assert (same[0].low, same[0].high) == (0, 0)


def test_products_of_a_text_are_drawn_together() -> None:
    """300 products of 30 texts, each wholly right or wrong: as uncertain as 30 products."""
    texts = np.repeat(RANDOM.permutation(30), 10)
    right = texts % 3 > 0
    given = category_figures(np.ones(300, dtype=np.int64), right.astype(np.int64), ALL)
    drawn: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []

    def measure(weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Any:
        drawn.append(weights)
        return given(weights)

    found = intervals(measure, texts, rounds=300)[0]
    assert all(len(set(each[texts == 7].tolist())) == 1 for each in drawn)
    assert max(each.max() for each in drawn) > 2
    error = 1.96 * (2 / 9 / 30) ** 0.5
    assert found.figure - found.low == pytest.approx(error, rel=0.25)
    assert found.high - found.figure == pytest.approx(error, rel=0.25)
