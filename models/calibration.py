"""Scores that say how often they are right: a line in log odds."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BELOW_ONE", "HIGHEST", "UNCALIBRATED", "calibrated"]

# Scores as they are.
UNCALIBRATED = (1.0, 0.0)
# What is higher is taken for it: the odds of a score of 1 are infinite, whatever valid says.
HIGHEST = 1 - 1e-6
# The highest score that is given, float32's last number below 1: a threshold of 1 refuses all.
BELOW_ONE = 1 - 2**-24


def calibrated(scores: Tensor, line: Tensor) -> Tensor:
    """``sigmoid(a logit(s) + c)`` (Platt 1999), in scores' shape, below 1; 0 stays 0.

    Higher scores stay higher but for rounding: rank before, not after.

    Args:
        scores: in [0, 1]. line: [2]: a > 0 and c.
    """
    slope, shift = line.unbind()
    raised = torch.sigmoid(slope * torch.logit(scores.clamp(max=HIGHEST)) + shift)
    return raised.clamp(max=BELOW_ONE)
