"""Which products each classifier of a cascade learns from, and how often (dhpc-amazon, C).

Legend: N products, R rows of all classifiers together, C leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.recipe import Strategy

__all__ = ["Tasks", "balanced", "make_tasks"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tasks:
    """Rows of training, each a product for one classifier.

    Args:
        products: [R], rows of the training split. of: [R], the classifier of each, 0 for the
            department's, 1 + d for that of department d.
        classes: [R], the class of each product in its classifier.
    """

    products: Rows
    of: Rows
    classes: Rows


def make_tasks(
    leaves: Rows,
    department_of: Rows,
    leaf_names: Mapping[int, str],
    department: Strategy,
    leaf: Strategy,
    seed: int,
) -> Tasks:
    """Every product for the department classifier and for the leaf classifier of its department.

    Args:
        leaves: [N], leaf row of each product. department_of: [C].
        leaf_names: departments that have a leaf classifier.
        department, leaf: how many products of each leaf.
    """
    random = np.random.default_rng([seed, 1])
    for_departments = balanced(leaves, department, random)
    for_leaves = balanced(leaves, leaf, random)
    with_classifier = np.isin(department_of[leaves[for_leaves]], list(leaf_names))
    for_leaves = for_leaves[with_classifier]
    # A leaf's place among the leaves of its department, which is its class.
    place: Rows = np.zeros(len(department_of), dtype=np.int64)
    for row in range(int(department_of.max(initial=-1)) + 1):
        members = np.flatnonzero(department_of == row)
        place[members] = np.arange(len(members))
    return Tasks(
        np.concatenate([for_departments, for_leaves]),
        np.concatenate([np.zeros_like(for_departments), 1 + department_of[leaves[for_leaves]]]),
        np.concatenate([department_of[leaves[for_departments]], place[leaves[for_leaves]]]),
    )


def balanced(leaves: Rows, strategy: Strategy, random: np.random.Generator) -> Rows:
    """Products of each leaf, at most ``per_leaf``; exactly so many with ``replace``.

    With replacement a leaf's products are first all taken as often as they all fit, so each is
    there as often as the others or once more.
    """
    if strategy.per_leaf is None:
        return np.arange(len(leaves))
    order = random.permutation(len(leaves))
    order = order[np.argsort(leaves[order], kind="stable")]
    taken = []
    for rows in np.split(order, np.flatnonzero(np.diff(leaves[order])) + 1):
        count = strategy.per_leaf if strategy.replace else min(strategy.per_leaf, len(rows))
        taken.append(np.resize(rows, count) if len(rows) else rows)
    return np.sort(np.concatenate(taken)) if taken else order
