from __future__ import annotations

import numpy as np
import pytest

from training import label_thresholds
from training.calibrate import attribute_thresholds
from training.label_thresholds import banded_thresholds

# 60 frequent pairs of label 0, right from 0.6 on; 40 pairs of the rare labels 1 to 20, right from
# 0.2 on: each rare label has one product that has it and one that has not.
SCORES = np.concatenate([np.linspace(0.3, 0.9, 60), np.tile([0.25, 0.1], 20)]).astype(np.float32)
ROWS = np.concatenate([np.zeros(60), np.repeat(np.arange(1, 21), 2)]).astype(np.int64)
POSITIVE = np.concatenate([SCORES[:60] > 0.6, np.tile([True, False], 20)])
NUM_POSITIVES = np.bincount(ROWS[POSITIVE], minlength=21)
TRAINED = np.array([5000, *[12] * 20])


def thresholds(trained: np.ndarray = TRAINED) -> np.ndarray:
    return banded_thresholds(SCORES, ROWS, POSITIVE, NUM_POSITIVES, trained)


def test_rare_labels_share_a_lower_threshold() -> None:
    found = thresholds()
    assert len(set(found[1:].tolist())) == 1
    assert 0.1 < found[1] <= 0.25
    assert found[0] > found[1]


def test_a_band_of_one_label_is_cut_where_that_label_is_right() -> None:
    taken = SCORES[:60] >= thresholds()[0]
    assert taken.tolist() == POSITIVE[:60].tolist()


# Two bands of one label each, right in as many cases as the scores say, one of them seldom.
_RANDOM = np.random.default_rng(0)
SEEN = np.concatenate([np.linspace(0, 1, 1000), np.linspace(0, 0.3, 1000)]).astype(np.float32)
RIGHT = _RANDOM.random(2000) < SEEN
OF = np.repeat([0, 1], 1000)


def cuts() -> np.ndarray:
    return banded_thresholds(SEEN, OF, RIGHT, np.bincount(OF[RIGHT]), np.array([5000, 200]))


def test_all_bands_are_cut_at_the_same_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_thresholds, "_MACRO_WEIGHT", 0.0)
    found = cuts()
    own = attribute_thresholds(SEEN, OF, RIGHT, np.bincount(OF[RIGHT]))
    # By its own F1 the second would be taken more often, as far as that rule goes.
    assert found[1] > 0.25 > own[1]

    def micro(thresholds: np.ndarray) -> float:
        taken = thresholds[OF] <= SEEN
        return 2 * int((taken & RIGHT).sum()) / (int(taken.sum()) + int(RIGHT.sum()))

    assert micro(found) > micro(own)


def test_macro_f1_lowers_the_cut_of_what_is_seldom_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_thresholds, "_MACRO_WEIGHT", 0.05)
    with_macro = cuts()
    monkeypatch.setattr(label_thresholds, "_MACRO_WEIGHT", 0.0)
    without = cuts()
    assert with_macro[0] == without[0]
    assert with_macro[1] < without[1]


def test_a_band_with_little_to_go_by_joins_the_next() -> None:
    split = TRAINED.copy()
    split[1:6] = 1
    assert len(set(thresholds(split)[1:].tolist())) == 1


def test_nothing_to_go_by() -> None:
    nothing = np.empty(0, dtype=np.float32)
    found = banded_thresholds(
        nothing, nothing.astype(np.int64), nothing.astype(bool), np.zeros(3, int), np.zeros(3, int)
    )
    assert found.tolist() == [0.5, 0.5, 0.5]
