"""The flagship's losses: both read the heads that serving reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels import masked_bce
from models.device_masks import DeviceMasks
from models.heads import AttributeHead, CascadeHead

__all__ = ["attribute_loss", "cascade_loss"]


def cascade_loss(
    head: CascadeHead,
    features: Tensor,
    leaf_rows: Tensor,
    leaf_offsets: Tensor | None = None,
) -> Tensor:
    """Mean of ``-log(P(d(c)) * P(c | d(c)))`` at each product's true leaf c.

    The logarithm makes the product of dhpc-amazon, C, a sum: one cross-entropy over departments
    and one over the leaves of the true department. Temperatures are 1 in training.

    Args:
        features: [B, D].
        leaf_rows: [B], int64; -1: the product has no leaf and no loss.
        leaf_offsets: [C], added to the leaf logits in training only: with ``t * log(share of the
            leaf)`` rare leaves are not held back by being rare (Menon et al. 2021, equation 10).

    Returns:
        A scalar; 0 where no product has a leaf.
    """
    department, leaf = head.logits(features)
    ones = torch.ones(2, device=features.device)
    leaf = leaf.float() if leaf_offsets is None else leaf.float() + leaf_offsets
    log_scores = head.log_scores_from(department.float(), leaf, ones)
    total = functional.nll_loss(log_scores, leaf_rows, ignore_index=-1, reduction="sum")
    return total / (leaf_rows >= 0).sum().clamp(min=1)


def attribute_loss(
    head: AttributeHead,
    features: Tensor,
    masks: DeviceMasks,
    mask_rows: Tensor,
    positive_indptr: Tensor,
    positive_indices: Tensor,
    *,
    sparse_grad: bool = False,
) -> Tensor:
    """Label-masked binary cross-entropy (ave-label-masking, 4.2), mean over labelled products.

    Args:
        features: [B, D].
        mask_rows: [B], int64; -1: the product has no labels to learn from, so no loss.
        positive_indptr, positive_indices: the positive label rows as CSR, [B + 1] and [P], int64.
        sparse_grad: give the head gradients of the rows alone that the masks let count.
    """
    losses = masked_bce(
        features,
        head.weight,
        head.bias,
        masks.indptr,
        masks.indices,
        mask_rows,
        positive_indptr,
        positive_indices,
        reduction="sum",
        sparse_grad=sparse_grad,
    )
    return losses / (mask_rows >= 0).sum().clamp(min=1)
