"""Every product in exactly one batch, no batch over a bound unless one product alone is."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batching import BatchingConfig, plan_batches

costs_of = st.lists(st.integers(1, 5_000), max_size=300).map(lambda c: np.array(c, dtype=np.int32))
configs = st.builds(
    BatchingConfig,
    max_batch_tokens=st.integers(1, 20_000),
    max_batch_products=st.integers(1, 64),
)


@given(costs_of, configs)
def test_every_product_is_in_exactly_one_batch(costs, config):
    batches = plan_batches(costs, config)
    rows = np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)
    assert sorted(rows.tolist()) == list(range(len(costs)))
    assert all(batch.dtype == np.int64 for batch in batches)


@given(costs_of, configs)
def test_no_batch_is_over_a_bound_unless_one_product_is(costs, config):
    for batch in plan_batches(costs, config):
        assert 1 <= len(batch) <= config.max_batch_products
        padded = int(costs[batch].max()) * len(batch)
        assert padded <= config.max_batch_tokens or len(batch) == 1


@given(costs_of, configs)
def test_like_costs_come_together_and_ties_keep_their_order(costs, config):
    batches = sorted(plan_batches(costs, config), key=lambda rows: (-costs[rows[0]], rows[0]))
    rows = [row for batch in batches for row in batch.tolist()]
    assert rows == sorted(range(len(costs)), key=lambda row: -int(costs[row]))


@given(costs_of, configs)
def test_no_two_batches_of_neighbouring_costs_would_fit_into_one(costs, config):
    batches = sorted(plan_batches(costs, config), key=lambda rows: (-costs[rows[0]], rows[0]))
    for first, second in pairwise(batches):
        together = int(costs[first].max()) * (len(first) + 1)
        assert len(first) == config.max_batch_products or together > config.max_batch_tokens
        assert len(second) >= 1


@given(costs_of, configs)
def test_each_batch_holds_the_first_row_that_still_waits(costs, config):
    waiting = set(range(len(costs)))
    for batch in plan_batches(costs, config):
        assert min(waiting) in batch
        waiting -= set(batch.tolist())


@pytest.mark.parametrize("name", ["max_batch_tokens", "max_batch_products"])
def test_a_bound_below_one_is_refused_with_its_value(name):
    with pytest.raises(ValueError, match=rf"{name} must be at least 1, got 0"):
        BatchingConfig(**{name: 0})
