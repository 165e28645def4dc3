from __future__ import annotations

import pytest
import torch

from models.calibration import UNCALIBRATED, beta_calibrated

SCORES = torch.tensor([0.0, 1e-30, 1e-6, 0.2, 0.5, 0.9, 1 - 1e-7, 1.0])


def test_uncalibrated_scores_are_as_they_were() -> None:
    found = beta_calibrated(SCORES, torch.tensor(UNCALIBRATED))
    torch.testing.assert_close(found, SCORES, rtol=1e-5, atol=0)


def test_by_hand() -> None:
    # 2 ln 0.5 + ln 2 + 0.5: odds of exp(0.5) / 2.
    found = beta_calibrated(torch.tensor([0.5]), torch.tensor([2.0, 1.0, 0.5]))
    odds = torch.tensor([0.5]).exp() / 2
    torch.testing.assert_close(found, odds / (1 + odds))


@pytest.mark.parametrize("parameters", [(2.0, 0.5, 1.0), (0.0, 1.0, 3.0), (0.5, 0.0, 3.0)])
def test_order_is_kept_and_nothing_stays_nothing(parameters: tuple[float, float, float]) -> None:
    found = beta_calibrated(SCORES, torch.tensor(parameters))
    assert found[0] == 0
    assert bool((found.diff() >= 0).all())
    assert bool(((found >= 0) & (found <= 1)).all())
