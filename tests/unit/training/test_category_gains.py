from __future__ import annotations

import numpy as np
import pytest

from training.category_gains import coverage_gain, gain_of, verdict


def test_gains_have_intervals() -> None:
    ours = np.array([True] * 60 + [False] * 40)
    theirs = np.array([True] * 50 + [False] * 50)
    texts = np.arange(100)
    gain, half = gain_of(ours, theirs, texts)
    assert gain == pytest.approx(10)
    assert half == pytest.approx(196 * np.sqrt(0.1 * 0.9 / 100))
    # Ten by ten they change together: as ten products that change.
    together, wider = gain_of(ours, theirs, texts // 10)
    assert together == gain
    assert wider == pytest.approx(196 * np.sqrt(0.1 * 0.9 / 10), rel=0.1)


@pytest.mark.parametrize(
    ("gain", "half", "paper", "said"),
    [
        (0.4, 0.5, 1.5, "within noise"),
        (0.0, 0.0, None, "within noise"),
        (0.6, 0.5, 1.5, "as the paper"),
        (-0.6, 0.5, 1.5, "against the paper"),
        (-0.6, 0.5, -0.1, "as the paper"),
        (0.6, 0.5, None, "gain"),
        (-0.6, 0.5, None, "loss"),
    ],
)
def test_what_an_interval_leaves_of_a_gain(
    gain: float, half: float, paper: float | None, said: str
) -> None:
    assert verdict(gain, half, paper) == said


def test_coverage_at_a_target_is_compared_on_the_same_products() -> None:
    scores = np.linspace(1, 0, 200, dtype=np.float32)
    # The best 100 are right and then every second one: 90 % right at 125 of 200.
    ours = np.arange(200) < 100
    ours[100::2] = True
    theirs = np.arange(200) % 2 == 0
    texts = np.arange(200)
    found = coverage_gain((scores, ours), (scores, theirs), texts, 0.9)
    # The other's best product is right, and nothing more reaches the target.
    assert found.figure == pytest.approx((125 - 1) / 200, abs=0.011)
    assert 0.4 < found.low < found.figure < found.high < 0.8
    same = coverage_gain((scores, ours), (scores, ours), texts, 0.9)
    assert (same.figure, same.low, same.high) == (0, 0, 0)
    # Of products with one score all are assigned or none, whichever stands first.
    tied = np.full(200, 0.5, dtype=np.float32)
    for right in (texts < 100, texts >= 100):
        assert coverage_gain((tied, right), (tied, texts < 0), texts, 0.9).figure == 0
        assert coverage_gain((tied, right), (tied, texts < 0), texts, 0.4).figure == 1
    none = coverage_gain((scores, ours), (scores, np.zeros(200, dtype=bool)), texts, 0.9)
    assert none.figure == pytest.approx(0.625, abs=0.011)
