from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.ave_bert import AveBertConfig, ClassifierRows
from models.errors import ModelError
from models.labels import LabelSpace
from models.taxonomy import compile_masks
from tests.releases import TAXONOMY

LABELS = LabelSpace(TAXONOMY.label_ids())
EVERY = tuple(TAXONOMY.categories)


def label_ids(rows: ClassifierRows, found: Any) -> set[str]:
    return {LABELS.ids[rows.label_of[row]] for row in found}


@pytest.mark.parametrize("classifiers", ["one", "leaf", "top"])
def test_relevant_rows_stand_for_the_relevant_labels(classifiers: Any) -> None:
    rows = ClassifierRows(TAXONOMY, LABELS, classifiers, EVERY)
    for place, category in enumerate(EVERY):
        wanted = set(TAXONOMY.relevant_label_ids(category))
        if classifiers == "leaf" and category not in TAXONOMY.leaves:
            wanted = set()
        assert label_ids(rows, rows.relevant.row(place)) == wanted


def test_a_leaf_has_rows_of_its_own() -> None:
    rows = ClassifierRows(TAXONOMY, LABELS, "leaf", TAXONOMY.leaves)
    assert len(rows) == len(compile_masks(TAXONOMY, TAXONOMY.leaves, LABELS).indices)
    seen = np.concatenate([rows.all_of_group.row(leaf) for leaf in range(len(TAXONOMY.leaves))])
    assert sorted(seen.tolist()) == list(range(len(rows)))


def test_a_top_category_has_the_labels_of_all_leaves_below_it() -> None:
    rows = ClassifierRows(TAXONOMY, LABELS, "top", TAXONOMY.leaves)
    for place, leaf in enumerate(TAXONOMY.leaves):
        department = TAXONOMY.department_of(leaf)
        below = [each for each in TAXONOMY.leaves if TAXONOMY.department_of(each) == department]
        wanted = {label for each in below for label in TAXONOMY.relevant_label_ids(each)}
        assert label_ids(rows, rows.all_of_group.row(place)) == wanted
        assert set(rows.relevant.row(place).tolist()) <= set(rows.all_of_group.row(place).tolist())


def test_rows_of_labels_that_a_classifier_lacks_are_left_out() -> None:
    rows = ClassifierRows(TAXONOMY, LABELS, "leaf", TAXONOMY.leaves)
    mask = compile_masks(TAXONOMY, TAXONOMY.leaves, LABELS).row(0).astype(np.int64)
    others = np.setdiff1d(np.arange(len(LABELS)), mask)
    assert len(rows.rows_of(np.zeros(len(others), dtype=np.int64), others)) == 0
    assert len(rows.rows_of(np.zeros(len(mask), dtype=np.int64), mask)) == len(mask)


def test_a_config_of_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="not an ave_bert's"):
        AveBertConfig.from_json({"encoder": {}, "max_tokens": 8, "classifiers": "some"})
