from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.hashing import HashingConfig, hash_fields

_TEXTS = st.text(max_size=40)
_CONFIGS = st.builds(
    HashingConfig,
    buckets=st.integers(1, 2**31),
    ngrams=st.sets(st.integers(1, 8), min_size=1).map(lambda found: tuple(sorted(found))),
    words=st.booleans(),
    max_chars=st.integers(1, 50),
    max_ids=st.integers(1, 60),
)


@given(st.lists(st.tuples(_TEXTS, _TEXTS), max_size=6), _CONFIGS)
def test_rows_are_those_of_each_product_alone(
    products: list[tuple[str, str]], config: HashingConfig
) -> None:
    window = hash_fields(products, config)
    assert len(window) == len(products)
    for row, product in enumerate(products):
        found = window.values[window.indptr[row] : window.indptr[row + 1]]
        np.testing.assert_array_equal(found, hash_fields([product], config).values)
        assert len(found) <= config.max_ids
        assert bool((np.diff(found.astype(np.int64)) > 0).all())
        assert len(found) == 0 or 0 <= int(found.min()) <= int(found.max()) < config.buckets
