"""The attribute model whose rows are the labels: a linear head under the category's label mask.

Legend: B products, D features, L labels, M relevant (product, label) pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.device_masks import DeviceMasks
from models.heads import AttributeHead, best_first
from models.labels import LabelSpace
from models.predictor import Encoder, LabelScores
from models.rivals import Rivals

__all__ = ["MaskedAttributes", "relevant_scores"]


class MaskedAttributes:
    """Scores of the relevant labels above their thresholds.

    Args:
        thresholds: [L], float32.
        rivals: calibrates the head's scores; None: they are the head's own.
    """

    def __init__(
        self,
        head: AttributeHead,
        encoder: Encoder,
        labels: LabelSpace,
        thresholds: NDArray[np.float32],
        rivals: Rivals | None = None,
    ) -> None:
        self._head = head
        self._rivals = rivals
        self._thresholds = torch.from_numpy(thresholds).to(head.weight.device)
        self.encoder = encoder
        self.labels = labels
        self.thresholds = thresholds

    @torch.inference_mode()
    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        """As ``models.predictor.AttributeModel``; the masks are all it needs of the category."""
        if self._rivals is None:
            return self._head.labels_above(features, masks, mask_rows, self._thresholds)
        owners, labels, scores = relevant_scores(
            self._head, self._rivals, features, masks, mask_rows
        )
        kept = scores >= self._thresholds[labels]
        counts = torch.bincount(owners[kept], minlength=len(mask_rows)).cpu().numpy()
        return best_first(
            np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum()]),
            labels[kept].cpu().numpy(),
            scores[kept].cpu().numpy(),
        )


def relevant_scores(
    head: AttributeHead,
    rivals: Rivals | None,
    features: Tensor,
    masks: DeviceMasks,
    mask_rows: NDArray[np.int64],
) -> tuple[Tensor, Tensor, Tensor]:
    """Product in [0, B), label row and score of each relevant pair, [M] each, in masks' order.

    Args:
        features: [B, D]. mask_rows: [B], int64; -1: no labels.
    """
    rows = torch.from_numpy(mask_rows).to(features.device)
    _, scores = head(
        features, masks.indptr, masks.indices, rows, num_categories=len(np.unique(mask_rows))
    )
    owners, labels = masks.pairs(rows)
    return owners, labels, scores if rivals is None else rivals(scores, owners, labels)
