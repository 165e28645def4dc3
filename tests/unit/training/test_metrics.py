import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from training.metrics import (
    accuracy,
    accuracy_coverage,
    accuracy_where,
    label_measures,
    macro_f1,
    reliability,
    share_by_group,
)


def test_accuracy() -> None:
    assert accuracy(["a", "b", "b", "c"], ["a", "b", "c", "c"]) == 0.75
    assert accuracy([], []) == 0
    with pytest.raises(ValueError, match=r"longer|shorter"):
        accuracy(["a"], [])


def test_macro_f1_is_over_the_true_classes() -> None:
    # a: 1 of 1 found, 2 predicted: 2/3. b: 0. c is never true: left out.
    assert macro_f1(["a", "b", "b"], ["a", "a", "c"]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1([], []) == 0
    with pytest.raises(ValueError, match="1 true classes, 0 predicted"):
        macro_f1(["a"], [])


def test_label_measures_by_hand() -> None:
    measures = label_measures(
        [{"red", "big"}, {"red"}, {"out of space"}, set()],
        [("red", "blue"), ["red", "red"], [], ["big"]],
    )
    # Pairs: 4 true, 4 predicted (a label counts once a product), 2 hit.
    assert measures.micro_precision == pytest.approx(2 / 4)
    assert measures.micro_recall == pytest.approx(2 / 4)
    assert measures.micro_f1 == pytest.approx(2 / 4)
    # red: 1, big: 0 of 1, out of space: 0; blue is never true.
    assert measures.macro_f1 == pytest.approx(1 / 3)
    assert measures.macro_precision == pytest.approx(1 / 3)
    assert measures.macro_recall == pytest.approx(1 / 3)


def test_label_measures_of_nothing() -> None:
    assert label_measures([], []).micro_f1 == 0
    assert label_measures([set()], [[]]).macro_f1 == 0
    with pytest.raises(ValueError, match=r"longer|shorter"):
        label_measures([set()], [])


def test_label_measures_equal_scikit_learns() -> None:
    random = np.random.default_rng(5)
    true, predicted = random.random((2, 60, 7)) < 0.3
    names = np.array(list("abcdefg"))
    ours = label_measures([names[row] for row in true], [names[row] for row in predicted])
    for average, f1, precision, recall in (
        ("micro", ours.micro_f1, ours.micro_precision, ours.micro_recall),
        ("macro", ours.macro_f1, ours.macro_precision, ours.macro_recall),
    ):
        assert f1 == pytest.approx(f1_score(true, predicted, average=average))
        assert precision == pytest.approx(precision_score(true, predicted, average=average))
        assert recall == pytest.approx(recall_score(true, predicted, average=average))


def test_accuracy_where() -> None:
    assert accuracy_where([True, False, True, False], [True, True, False, False]) == (0.5, 0.5)
    assert accuracy_where([True], [False]) == (0, 0)
    assert accuracy_where([], []) == (0, 0)


def test_accuracy_coverage() -> None:
    coverage, shares = accuracy_coverage([0.2, 0.9, 0.5, 0.5], [False, True, True, False])
    # No threshold takes one of the two with 0.5 and leaves the other.
    assert coverage.tolist() == [0.25, 0.75, 1]
    assert shares.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert len(accuracy_coverage([], [])[0]) == 0


def test_reliability() -> None:
    bins = reliability([0.05, 0.95, 1.0, 0.85], [False, True, False, True], num_bins=10)
    assert bins.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert bins.mean_scores[9] == pytest.approx(0.975)
    assert bins.accuracies[9] == pytest.approx(0.5)
    assert np.isnan(bins.accuracies[1])
    assert bins.calibration_error == pytest.approx((0.05 + 0.15 + 0.95) / 4)
    assert reliability([], []).calibration_error == 0


def test_share_by_group() -> None:
    shares = share_by_group(["ja", "en", "en"], [True, True, False])
    assert list(shares.items()) == [("en", (2, 0.5)), ("ja", (1, 1.0))]
