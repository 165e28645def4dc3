from __future__ import annotations

from pathlib import Path

import numpy as np

from models.encoders import load_pretrained
from models.flagship_preparer import (
    BULLETS_IDS,
    HASHED_IDS,
    REST_IDS,
    WHOLE_IDS,
    FlagshipPreparer,
)
from models.hashing import HashingConfig
from models.product import Product
from models.tokens import INPUT_IDS, TextTokenizer
from tests.tiny_encoder import save_tiny_bert

PRODUCTS = [
    Product("1", None, "en", "Red dress", "long and soft", ("cotton",), (), None),
    Product("2", None, "ja", "革の手袋", "", (), (), None),
    Product("3", None, "", "", "lamp " * 40, (), (), None),
]


def test_a_product_costs_its_tokens(tmp_path: Path) -> None:
    tokenizer = load_pretrained(str(save_tiny_bert(tmp_path)), pooling="concat").tokenizer
    preparer = FlagshipPreparer(
        TextTokenizer(tokenizer, 16), {HASHED_IDS: HashingConfig(buckets=101)}
    )
    prepared = preparer.prepare(PRODUCTS)
    assert set(prepared.arrays) == {INPUT_IDS, HASHED_IDS}
    assert prepared.costs.tolist() == prepared.arrays[INPUT_IDS].lengths.tolist()
    assert prepared.costs.dtype == np.int32
    assert prepared.costs[2] == 16
    assert len(preparer.prepare([])) == 0


def test_bullets_may_have_a_bag_of_their_own() -> None:
    hashing = HashingConfig(buckets=101, mark_title=False)
    two = FlagshipPreparer(None, {HASHED_IDS: hashing, REST_IDS: hashing}).prepare(PRODUCTS)
    three = FlagshipPreparer(
        None, {HASHED_IDS: hashing, REST_IDS: hashing, BULLETS_IDS: hashing}
    ).prepare(PRODUCTS)
    assert set(three.arrays) == {HASHED_IDS, REST_IDS, BULLETS_IDS}
    # Only the first product has bullets.
    assert three.arrays[BULLETS_IDS].lengths[0] > 0
    assert three.arrays[BULLETS_IDS].lengths[1:].tolist() == [0, 0]
    of_both = set(three.arrays[BULLETS_IDS].take(np.array([0])).values.tolist())
    of_both |= set(three.arrays[REST_IDS].take(np.array([0])).values.tolist())
    assert of_both == set(two.arrays[REST_IDS].take(np.array([0])).values.tolist())
    assert (
        three.costs.tolist()
        == np.maximum(sum(three.arrays[name].lengths for name in three.arrays) // 16, 1).tolist()
    )


def test_all_fields_may_have_a_bag_beside_the_others() -> None:
    hashing, marked = HashingConfig(buckets=101, mark_title=False), HashingConfig(buckets=101)
    found = FlagshipPreparer(
        None, {HASHED_IDS: hashing, REST_IDS: hashing, WHOLE_IDS: marked}
    ).prepare(PRODUCTS)
    alone = FlagshipPreparer(None, {HASHED_IDS: marked}).prepare(PRODUCTS)
    assert found.arrays[WHOLE_IDS].values.tolist() == alone.arrays[HASHED_IDS].values.tolist()
    title = FlagshipPreparer(None, {HASHED_IDS: hashing, REST_IDS: hashing}).prepare(PRODUCTS)
    assert found.arrays[HASHED_IDS].values.tolist() == title.arrays[HASHED_IDS].values.tolist()
