"""The attribute model whose rows are the labels: a linear head under the category's label mask."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.device_masks import DeviceMasks
from models.heads import AttributeHead
from models.labels import LabelSpace
from models.predictor import Encoder, LabelScores

__all__ = ["MaskedAttributes"]


class MaskedAttributes:
    """Scores of the relevant labels above their thresholds.

    Args:
        thresholds: [L], float32.
    """

    def __init__(
        self,
        head: AttributeHead,
        encoder: Encoder,
        labels: LabelSpace,
        thresholds: NDArray[np.float32],
    ) -> None:
        self._head = head
        self._thresholds = torch.from_numpy(thresholds).to(head.weight.device)
        self.encoder = encoder
        self.labels = labels
        self.thresholds = thresholds

    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        """As ``models.predictor.AttributeModel``; the masks are all it needs of the category."""
        return self._head.labels_above(features, masks, mask_rows, self._thresholds)
