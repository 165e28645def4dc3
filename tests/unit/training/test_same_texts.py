from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prepare import Ragged
from models.product import Product
from training.same_texts import first_of_each, same_texts, text_keys


def ragged(*rows: list[int]) -> Ragged:
    flat = np.array([each for row in rows for each in row], dtype=np.int32)
    return Ragged(flat, np.cumsum([0, *map(len, rows)]))


def test_products_whose_arrays_are_all_the_same_are_one_text() -> None:
    title = ragged([1, 2], [3], [1, 2], [1, 2], [3])
    rest = ragged([5], [], [5], [6], [])
    texts = same_texts({"title": title, "rest": rest})
    rows = [
        texts.values[a:b].tolist() for a, b in zip(texts.indptr, texts.indptr[1:], strict=False)
    ]
    assert rows == [[0, 2], [1, 4], [3]]
    assert first_of_each(texts).tolist() == [0, 1, 3]


def test_an_id_that_moves_to_the_next_array_is_another_text() -> None:
    texts = same_texts({"title": ragged([1, 2], [1]), "rest": ragged([], [2])})
    assert len(texts) == 2


def test_no_products() -> None:
    texts = same_texts({"title": ragged()})
    assert len(texts) == 0
    assert first_of_each(texts).tolist() == []


def test_what_a_product_says_has_a_number() -> None:
    said = Product("1", None, "en", "red", "shirt", ("wool", "warm"), (), None)
    others = [
        replace(said, title="redshirt", description=""),
        replace(said, description="wool", bullets=("shirt", "warm")),
        replace(said, bullets=("wool warm",)),
        replace(said, bullets=()),
        replace(said, title="red\ud800"),
    ]
    keys = text_keys([said, replace(said, product_id="2", locale="de"), *others])
    assert keys.dtype == np.int64
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 6
    assert text_keys([]).tolist() == []


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=30))
def test_every_product_is_in_one_text_with_its_like(rows: list[list[int]]) -> None:
    texts = same_texts({"title": ragged(*rows)})
    assert sorted(texts.values.tolist()) == list(range(len(rows)))
    of = [{tuple(rows[row]) for row in texts.take(np.array([t])).values} for t in range(len(texts))]
    assert all(len(each) == 1 for each in of)
    assert len({text for each in of for text in each}) == len(texts)
