"""Heads: department x leaf in cascade, and the label-masked attribute head.

Legend: B products, D features, P departments, C leaves, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernels import MaskedLinear
from models.calibration import BELOW_ONE
from models.device_masks import DeviceMasks
from models.predictor import CategoryScores, LabelScores

__all__ = ["AttributeHead", "CascadeHead", "best_first", "best_rows"]


class CascadeHead(nn.Module):
    """Scores leaves as the product of a department's and a leaf's score (dhpc-amazon, C).

    With d(c) the department of leaf c, temperatures T_p and T_c, and logits z over departments
    and u over leaves::

        score(c) = P(d(c)) * P(c | d(c))
        P(d)     = exp(z_d / T_p) / sum over all departments e of exp(z_e / T_p)
        P(c | d) = exp(u_c / T_c) / sum over the leaves b of d of exp(u_b / T_c)

    so the scores of all leaves sum to one, where every department has any. Both classifiers are
    one linear layer: what is not linear belongs to the features before them.

    Args:
        departments: [C], the department row of each leaf row.
    """

    department_of: Tensor
    temperatures: Tensor

    def __init__(self, num_features: int, departments: Sequence[int]) -> None:
        super().__init__()
        num_departments = max(departments) + 1
        self.department = nn.Linear(num_features, num_departments)
        self.leaf = nn.Linear(num_features, len(departments))
        self.register_buffer(
            "department_of", torch.tensor(departments, dtype=torch.int64), persistent=False
        )
        # Department first, leaf second; fitted on valid after training.
        self.register_buffer("temperatures", torch.ones(2))

    def logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of departments [B, P] and of leaves [B, C], before any temperature."""
        return self.department(features), self.leaf(features)

    def log_scores(self, features: Tensor) -> Tensor:
        """Logarithms of the scores of all leaves, [B, C], at the fitted temperatures."""
        return self.log_scores_from(*self.logits(features), self.temperatures)

    def log_scores_from(self, department: Tensor, leaf: Tensor, temperatures: Tensor) -> Tensor:
        """``log_scores`` from logits [B, P] and [B, C] and temperatures [2]."""
        of = self.department_of.expand(len(leaf), -1)
        leaf = leaf / temperatures[1]
        log_department = torch.log_softmax(department / temperatures[0], dim=1)
        # log-sum-exp by department; its own maximum keeps a department that is far off exact.
        highest = torch.full_like(department, -torch.inf).scatter_reduce(
            1, of, leaf.detach(), "amax"
        )
        shifted = (leaf - highest.gather(1, of)).exp()
        total = torch.zeros_like(department).scatter_add(1, of, shifted)
        return (log_department - highest - total.log()).gather(1, of) + leaf

    @torch.inference_mode()
    def best(self, features: Tensor, top_k: int) -> CategoryScores:
        """The ``min(top_k, C)`` best leaves of each product, below 1; equal scores: lowest row."""
        scores = self.log_scores(features).exp()
        rows = best_rows(scores, top_k)
        top = scores.gather(1, rows).clamp_(max=BELOW_ONE)
        return CategoryScores(rows.cpu().numpy(), top.cpu().numpy())


def best_rows(scores: Tensor, top_k: int) -> Tensor:
    """Columns of the ``min(top_k, C)`` highest scores, best first, the lowest first among equals.

    Equals ``scores.sort(descending=True, stable=True)[1][:, :top_k]``, without sorting all.

    Args:
        scores: [B, C].

    Returns:
        [B, min(top_k, C)], int64.
    """
    top_k = min(top_k, scores.shape[1])
    if top_k == 0 or not len(scores):
        return torch.empty(len(scores), top_k, dtype=torch.int64, device=scores.device)
    values, rows = scores.topk(top_k, dim=1)
    # Among equals at the edge topk keeps any: those products (few) are sorted whole.
    tied = (scores >= values[:, -1:]).sum(dim=1) > top_k
    if bool(tied.any()):
        rows[tied] = scores[tied].sort(dim=1, descending=True, stable=True)[1][:, :top_k]
    rows = rows.sort(dim=1)[0]
    order = scores.gather(1, rows).sort(dim=1, descending=True, stable=True)[1]
    return rows.gather(1, order)


class AttributeHead(MaskedLinear):
    """One linear layer to all labels, read only where a product's mask allows (ave-label-masking).

    The score of label j of a product whose relevant labels are M is ``sigmoid(w_j . x + b_j)``
    for j in M; other labels have no score.
    """

    @torch.inference_mode()
    def labels_above(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        thresholds: Tensor,
    ) -> LabelScores:
        """Relevant labels at or above ``thresholds`` [L], within a product best first."""
        indptr, rows, scores = (
            part.cpu().numpy()
            for part in self.above(
                features,
                masks.indptr,
                masks.indices,
                torch.from_numpy(mask_rows).to(features.device),
                threshold=thresholds,
                num_categories=len(np.unique(mask_rows)),
            )
        )
        return best_first(indptr, rows, scores)


def best_first(
    indptr: NDArray[np.int64], rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> LabelScores:
    """Scores in each product's order of preference; among equals the lowest label row first."""
    owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((rows, -scores, owner))
    return LabelScores(indptr, rows[order], scores[order])
