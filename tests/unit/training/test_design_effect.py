from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.design_effect import design_effect, text_rows
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


def test_it_is_the_variance_of_means_of_drawn_texts() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 12, 400)
    texts = np.repeat(np.arange(400), sizes)
    # Of a text most are right, or most are wrong.
    values = random.random(len(texts)) < np.where(random.random(400) < 0.7, 0.95, 0.2)[texts]
    hits = np.bincount(texts, values)
    means = []
    for _ in range(4_000):
        drawn = random.integers(0, 400, 400)
        means.append(hits[drawn].sum() / sizes[drawn].sum())
    share = values.mean()
    of_products = share * (1 - share) / len(values)
    assert design_effect(values, texts) == pytest.approx(np.var(means) / of_products, rel=0.1)


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
    assert of_texts == pytest.approx((low, high), abs=2e-3)
    assert share_interval(right[:0], np.empty(0, dtype=np.int64)) == (0, 1)
