from __future__ import annotations

import numpy as np
import pytest
import torch

from models.calibration import calibrated
from models.heads import CascadeHead
from models.rivals import Rivals
from training.calibrate import attribute_thresholds, fit_line, fit_rivals, fit_temperatures
from training.metrics import reliability


def test_temperatures_find_what_the_logits_were_scaled_by() -> None:
    torch.manual_seed(0)
    head = CascadeHead(1, [0, 0, 0, 1, 1])
    department, leaf = torch.randn(4000, 2), torch.randn(4000, 5)
    scores = head.log_scores_from(department, leaf, torch.ones(2)).exp()
    true = torch.multinomial(scores, 1)[:, 0]
    found = fit_temperatures(head, 3 * department, 0.5 * leaf, true)
    np.testing.assert_allclose(found, [3, 0.5], rtol=0.15)


def test_no_valid_products_no_temperatures() -> None:
    head = CascadeHead(1, [0])
    found = fit_temperatures(head, torch.empty(0, 1), torch.empty(0, 1), torch.empty(0).long())
    assert found.tolist() == [1, 1]


def test_attribute_thresholds_pooled_and_own() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat([0, 1], [400, 40])
    positive = random.random(440) < 0.5
    positive[400:] = [True] * 5 + [False] * 35
    # Label 0 tells its positives apart at 0.3, label 1 (too few positives) at 0.8.
    scores = np.where(rows == 0, np.where(positive, 0.35, 0.25), np.where(positive, 0.85, 0.75))
    counts = np.bincount(rows[positive], minlength=3)
    found = attribute_thresholds(scores.astype(np.float32), rows, positive, counts)
    assert 0.25 < found[0] <= 0.35
    assert found[1] == found[2]


def test_no_positives_half() -> None:
    found = attribute_thresholds(
        np.empty(0, dtype=np.float32),
        np.empty(0, dtype=np.int64),
        np.empty(0, dtype=np.bool_),
        np.zeros(3, dtype=np.int64),
    )
    assert found.tolist() == [0.5, 0.5, 0.5]


def test_a_line_makes_low_scores_say_how_often_they_are_right() -> None:
    random = np.random.default_rng(0)
    true = random.random(4000)
    right = random.random(4000) < true
    # Log odds of half the slope, shifted down.
    scores = (1 / (1 + np.exp(-(0.5 * np.log(true / (1 - true)) - 1.5)))).astype(np.float32)
    line = fit_line(scores, right)
    assert line is not None
    assert line == (pytest.approx(2, rel=0.1), pytest.approx(3, rel=0.1))
    found = calibrated(torch.from_numpy(scores), torch.tensor(line)).numpy()
    assert reliability(scores, right).calibration_error > 0.2
    assert reliability(found, right).calibration_error < 0.03


@pytest.mark.parametrize("right", [[True] * 4, [False] * 4, [], [True, True, False, False]])
def test_there_is_no_line_where_scores_say_nothing(right: list[bool]) -> None:
    scores = np.linspace(0.1, 0.9, len(right), dtype=np.float32)
    assert fit_line(scores, np.array(right, dtype=bool)) is None


def rivalry(products: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores of two exclusive values and one label by itself, for each product."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.sigmoid(torch.randn(3 * products, generator=generator))
    return scores, torch.arange(products).repeat_interleave(3), torch.arange(3).repeat(products)


def test_lines_of_rivals_are_found_again() -> None:
    scores, owners, labels = rivalry(20_000)
    true = Rivals([0, 0, -1])
    true.lines.copy_(torch.tensor([[2.0, 0.0, -0.5], [0.7, 0.9, 0.3]]))
    shares = true(scores, owners, labels)
    positive = (
        torch.rand(len(shares), generator=torch.Generator().manual_seed(1)) < shares
    ).numpy()
    fitted = Rivals([0, 0, -1])
    fit_rivals(fitted, scores, owners, labels, positive)
    np.testing.assert_allclose(fitted.lines, true.lines, atol=0.12)


def test_no_line_where_scores_mislead_or_nothing_is_true() -> None:
    scores, owners, labels = rivalry(500)
    rivals = Rivals([0, 0, -1])
    misled = (scores < 0.5).numpy() & (labels != 2).numpy()
    fit_rivals(rivals, scores, owners, labels, misled)
    torch.testing.assert_close(rivals.lines, Rivals([0, 0, -1]).lines)


def test_rivals_that_speak_for_a_label_are_left_out() -> None:
    generator = torch.Generator().manual_seed(2)
    named = torch.randn(5_000, generator=generator)
    logits = 3 * named[:, None] + 0.3 * torch.randn(5_000, 2, generator=generator) + 1
    scores = torch.sigmoid(logits).flatten()
    owners, labels = torch.arange(5_000).repeat_interleave(2), torch.arange(2).repeat(5_000)
    # A value is true where the attribute is named at all, whatever its own score.
    shares = torch.sigmoid(named - 2).repeat_interleave(2)
    positive = (torch.rand(len(shares), generator=generator) < shares).numpy()
    rivals = Rivals([0, 0])
    fit_rivals(rivals, scores, owners, labels, positive)
    slope, against, shift = rivals.lines[1].tolist()
    assert slope > 0
    assert against == 0
    assert shift < -1
    found = rivals(scores, owners, labels)
    assert abs(float(found.mean()) - positive.mean()) < 0.01
