from __future__ import annotations

import numpy as np

from training.recipe import Strategy
from training.tasks import balanced, make_tasks

LEAVES = np.array([0, 0, 0, 0, 0, 1, 2, 2, 3, 1])
DEPARTMENT_OF = np.array([0, 1, 0, 2])


def test_every_product_is_for_both_of_its_classifiers() -> None:
    tasks = make_tasks(LEAVES, DEPARTMENT_OF, {0: "leaf-0"}, Strategy(), Strategy(), seed=1)
    of_departments = tasks.of == 0
    np.testing.assert_array_equal(tasks.products[of_departments], np.arange(10))
    np.testing.assert_array_equal(tasks.classes[of_departments], DEPARTMENT_OF[LEAVES])
    # Departments 1 and 2 have one leaf each: nothing to learn.
    assert set(tasks.of[~of_departments].tolist()) == {1}
    np.testing.assert_array_equal(tasks.products[~of_departments], [0, 1, 2, 3, 4, 6, 7])
    np.testing.assert_array_equal(tasks.classes[~of_departments], [0, 0, 0, 0, 0, 1, 1])


def test_resampling_caps_or_balances() -> None:
    random = np.random.default_rng(0)
    capped = balanced(LEAVES, Strategy(per_leaf=2), random)
    assert len(set(capped.tolist())) == len(capped)
    np.testing.assert_array_equal(np.bincount(LEAVES[capped]), [2, 2, 2, 1])
    even = balanced(LEAVES, Strategy(per_leaf=3, replace=True), random)
    np.testing.assert_array_equal(np.bincount(LEAVES[even]), [3, 3, 3, 3])
    times = np.bincount(even, minlength=10)
    assert times[8] == 3
    assert sorted(times[[6, 7]]) == [1, 2]
    assert len(balanced(LEAVES[:0], Strategy(per_leaf=3), random)) == 0


def test_the_seed_decides() -> None:
    of = [
        make_tasks(LEAVES, DEPARTMENT_OF, {0: ""}, Strategy(per_leaf=2), Strategy(), seed).products
        for seed in (1, 1, 2)
    ]
    assert of[0].tolist() == of[1].tolist() != of[2].tolist()
