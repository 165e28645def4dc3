"""Every figure by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.predictor import LabelScores
from training.attribute_measures import FrequencyGroup, attribute_measures

# Three products; labels 0 to 3. Within a product best first.
FOUND = LabelScores(
    np.array([0, 3, 5, 5]),
    np.array([0, 1, 2, 1, 0]),
    np.array([0.9, 0.6, 0.2, 0.7, 0.4], dtype=np.float32),
)
TRUE = [[0, 2], [1], [3, -1]]
HALF = np.full(4, 0.5, dtype=np.float32)
COUNTS = np.array([500, 20, 3, 0])
GROUPS = [FrequencyGroup("often", 100), FrequencyGroup("rare", 1)]


def test_micro_counts_every_pair() -> None:
    found = attribute_measures(FOUND, TRUE, HALF, COUNTS, GROUPS)
    # Taken: (0, 0), (0, 1), (1, 1); of these two are true; five labels are true.
    assert found["micro_precision"] == pytest.approx(2 / 3)
    assert found["micro_recall"] == pytest.approx(2 / 5)
    assert found["micro_f1"] == pytest.approx(2 * 2 / 8)


def test_macro_is_over_labels_seen_in_training_and_here() -> None:
    found = attribute_measures(FOUND, TRUE, HALF, COUNTS, GROUPS)
    # Label 3 was never trained. Precision 1, 1/2, 0; recall 1, 1, 0; F1 1, 2/3, 0.
    assert found["macro_precision"] == pytest.approx(0.5)
    assert found["macro_recall"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(5 / 9)
    assert found["macro_f1_of_means"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_precision_among_the_best_has_no_threshold() -> None:
    found = attribute_measures(FOUND, TRUE, np.ones(4, dtype=np.float32), COUNTS, GROUPS)
    assert found["micro_precision"] == 0
    assert found["precision_at_1"] == pytest.approx(2 / 3)
    assert found["precision_at_3"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found["precision_at_5"] == pytest.approx((2 / 5 + 1 / 5 + 0) / 3)


def test_groups_by_frequency_in_training() -> None:
    found = attribute_measures(FOUND, TRUE, HALF, COUNTS, GROUPS)
    assert (found["often_labels"], found["rare_labels"]) == (1, 2)
    assert found["often_micro_f1"] == 1
    assert found["rare_micro_f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["rare_macro_f1"] == pytest.approx(1 / 3)
    # Precision 1/2 and 0, recall 1 and 0.
    assert found["rare_macro_f1_of_means"] == pytest.approx(2 * 0.25 * 0.5 / 0.75)


def test_the_papers_macro_f1_is_that_of_its_means() -> None:
    """Table 4: 42.71 from 52.82 and 35.85, 19.51 from 26.57 and 15.42."""
    for precision, recall, printed in ((52.82, 35.85, 42.71), (26.57, 15.42, 19.51)):
        assert 2 * precision * recall / (precision + recall) == pytest.approx(printed, abs=0.01)


def test_nothing_is_zero() -> None:
    empty = LabelScores(
        np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    )
    found = attribute_measures(empty, [], HALF, COUNTS, GROUPS)
    assert set(found.values()) == {0}
