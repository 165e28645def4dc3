"""Scores that say how often they are right: beta calibration."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["UNCALIBRATED", "beta_calibrated"]

# Scores as they are.
UNCALIBRATED = (1.0, 1.0, 0.0)


def beta_calibrated(scores: Tensor, parameters: Tensor) -> Tensor:
    """``sigmoid(a ln s - b ln(1 - s) + c)`` (Kull, Silva Filho and Flach 2017), in scores' shape.

    It keeps the order of scores. A score of 0 stays 0: nothing was scored there.

    Args:
        scores: in [0, 1]. parameters: [3]: a and b, at least 0, and c.
    """
    slope, rise, shift = parameters.unbind()
    log_odds = torch.special.xlogy(slope, scores) - torch.special.xlog1py(rise, -scores) + shift
    return torch.where(scores > 0, torch.sigmoid(log_odds), 0.0)
