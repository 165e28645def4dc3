from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.design_effect import alikeness, design_effect, running_sizes, text_rows
from training.metrics import share_interval


def test_texts_are_numbered_as_they_come() -> None:
    assert text_rows(np.array([7, -3, 7, 9, -3])).tolist() == [0, 1, 0, 2, 1]
    assert text_rows(np.empty(0, dtype=np.int64)).tolist() == []


def test_texts_of_their_own_change_nothing() -> None:
    values = np.random.default_rng(1).random(50)
    assert design_effect(values, np.arange(50)) == pytest.approx(1)


@pytest.mark.parametrize("variants", [2, 5, 20])
def test_products_that_are_answered_alike_count_as_one(variants: int) -> None:
    values = np.random.default_rng(1).random(500) < 0.8
    found = design_effect(np.repeat(values, variants), np.repeat(np.arange(500), variants))
    assert found == pytest.approx(variants, rel=0.01)


def test_products_that_only_share_a_text_count_each() -> None:
    """What is right is drawn for each product: the text says nothing of it."""
    random = np.random.default_rng(2)
    found = [design_effect(random.random(4_000) < 0.8, np.arange(4_000) // 5) for _ in range(20)]
    assert np.mean(found) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("share", [0.9, 0.97])
@pytest.mark.parametrize("skew", [1.2, 3.0])
def test_intervals_hold_the_truth(share: float, skew: float) -> None:
    """Of texts that are wholly right or wrong, some of which many products share: no fewer than 92
    of 100, and not surer of a high share than they may be where few are wrong."""
    random = np.random.default_rng(3)
    too_high = held = 0
    for _ in range(400):
        sizes = np.minimum(random.pareto(skew, 200).astype(np.int64) + 1, 100)
        right = random.random(200) < share
        texts = np.repeat(np.arange(200), sizes)
        low, high = share_interval(np.repeat(right, sizes), texts)
        held += low <= share <= high
        too_high += low > share
    assert held >= 368
    assert too_high <= 14


def test_one_more_mistake_makes_nothing_surer() -> None:
    """Ten texts of 99 products are right; then one product by itself is wrong."""
    texts = np.repeat(np.arange(11), [30, 20, 12, 10, 8, 6, 5, 4, 3, 1, 1])
    right = texts < 10
    without, _ = share_interval(right[:-1], texts[:-1])
    with_one, _ = share_interval(right, texts)
    assert with_one < without
    assert with_one < 0.8


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_how_alike_products_of_a_text_are(chance: float) -> None:
    """As often as ``chance`` a product's value is its text's, else its own: rho is its square."""
    random = np.random.default_rng(4)
    texts = np.repeat(np.arange(3_000), random.integers(1, 8, 3_000))
    shared, own = random.random(3_000)[texts], random.random(len(texts))
    values = np.where(random.random(len(texts)) < chance, shared, own)
    assert alikeness(values, texts) == pytest.approx(chance**2, abs=0.03)


def test_sizes_as_products_come() -> None:
    # 1; 1 + 1; 4 + 1; 4 + 1 + 1; 9 + 1 + 1
    assert running_sizes(np.array([5, 2, 5, 9, 5])).tolist() == [1, 1, 5 / 3, 6 / 4, 11 / 5]
    assert running_sizes(np.empty(0, dtype=np.int64)).tolist() == []


def test_where_nothing_is_known_of_how_alike_they_are() -> None:
    """All right: four texts of 1, 1, 1 and 3 products."""
    texts = np.array([0, 1, 2, 3, 3, 3])
    assert design_effect(np.ones(6), texts) == 12 / 6
    assert design_effect(np.array([True, False]), np.zeros(2, dtype=np.int64)) == 2
    assert design_effect(np.ones(0), np.empty(0, dtype=np.int64)) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_it_is_from_one_to_all(products: list[tuple[bool, int]]) -> None:
    values, texts = map(np.array, zip(*products, strict=True))
    assert 1 <= design_effect(values, texts) <= len(products)


def test_an_interval_of_products_of_one_text_is_that_of_the_text() -> None:
    right = np.arange(100) < 90
    low, high = share_interval(right, np.arange(100))
    # Wilson, by hand: (90 + 1.9207 -+ 1.96 * sqrt(9 + 0.9604)) / 103.8415
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    of_texts = share_interval(np.repeat(right, 4), np.repeat(np.arange(100), 4))
    assert of_texts == pytest.approx((low, high))
    assert share_interval(right[:9], np.arange(9))[1] == 1
    assert share_interval(~right[:9], np.arange(9))[0] == 0
    assert share_interval(right[:0], np.empty(0, dtype=np.int64)) == (0, 1)
