from __future__ import annotations

import pytest
import torch

from models.calibration import HIGHEST, UNCALIBRATED, calibrated

SCORES = torch.tensor([0.0, 1e-30, 1e-6, 0.2, 0.5, 0.9, 1 - 1e-5])


def test_uncalibrated_scores_are_as_they_were() -> None:
    found = calibrated(SCORES, torch.tensor(UNCALIBRATED))
    torch.testing.assert_close(found, SCORES, rtol=1e-5, atol=0)


def test_by_hand() -> None:
    # Odds of 1 to the third, times exp(0.5).
    found = calibrated(torch.tensor([0.5, 0.8]), torch.tensor([3.0, 0.5]))
    odds = torch.tensor([1.0, 64.0]) * torch.tensor(0.5).exp()
    torch.testing.assert_close(found, odds / (1 + odds))


@pytest.mark.parametrize("line", [(2.0, 1.0), (0.3, -4.0)])
def test_order_is_kept_and_nothing_stays_nothing(line: tuple[float, float]) -> None:
    found = calibrated(SCORES, torch.tensor(line))
    assert found[0] == 0
    assert bool((found[2:].diff() > 0).all())


def test_a_score_of_one_is_worth_what_valid_says() -> None:
    found = calibrated(torch.tensor([1.0, HIGHEST]), torch.tensor([0.2, -1.0]))
    assert found[0] == found[1]
    assert 0.8 < found[0] < 0.9


def test_what_is_no_number_stays_none() -> None:
    assert calibrated(torch.tensor([torch.nan]), torch.tensor([2.0, 1.0])).isnan().all()
