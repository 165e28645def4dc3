"""The targets of ``masked_bce``, and what they make of an entry: flags that both twins write."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["POSITIVE", "SAMPLED_NEGATIVE", "Targets"]

POSITIVE = 1
SAMPLED_NEGATIVE = 2


class Targets(NamedTuple):
    """The arguments of these names of ``kernels.masked_bce``."""

    positive_indptr: Tensor
    positive_indices: Tensor
    negative_indptr: Tensor | None
    negative_indices: Tensor | None
    negative_weight: Tensor | None
    positive_weight: Tensor | None
    label_smoothing: float
    smoothing_prior: float
    bootstrap: float
