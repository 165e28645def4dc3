"""The flagship's losses: both read the heads that serving reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels import masked_bce
from models.device_masks import DeviceMasks
from models.heads import AttributeHead, CascadeHead
from models.members import member_logits

__all__ = ["attribute_loss", "cascade_loss"]


def cascade_loss(
    head: CascadeHead,
    features: Tensor,
    leaf_rows: Tensor,
    leaf_offsets: Tensor | None = None,
    *,
    labelled: int,
) -> Tensor:
    """Mean of ``-log(P(d(c)) * P(c | d(c)))`` at each product's true leaf c.

    The logarithm makes the product of dhpc-amazon, C, a sum: one cross-entropy over departments
    and one over the leaves of the true department. Temperatures are 1 in training.

    Args:
        features: [B, M, D] of M members, each with a loss of its own: their mean.
        leaf_rows: [B], int64; -1: the product has no leaf and no loss.
        leaf_offsets: [C], added to the leaf logits in training only: with ``t * log(share of the
            leaf)`` rare leaves are not held back by being rare (Menon et al. 2021, equation 10).
        labelled: products with a leaf that the mean is over; these may be a part of them.

    Returns:
        A scalar; 0 where no product has a leaf.
    """
    department = member_logits(head.department, features)
    leaf = member_logits(head.leaf, features)
    num_members = features.shape[1]
    leaf_rows = leaf_rows.repeat(num_members)
    ones = torch.ones(2, device=features.device)
    leaf = leaf.float() if leaf_offsets is None else leaf.float() + leaf_offsets
    log_scores = head.log_scores_from(department.float(), leaf, ones)
    total = functional.nll_loss(log_scores, leaf_rows, ignore_index=-1, reduction="sum")
    return total / (num_members * max(1, labelled))


def attribute_loss(
    head: AttributeHead,
    features: Tensor,
    masks: DeviceMasks,
    mask_rows: Tensor,
    positive_indptr: Tensor,
    positive_indices: Tensor,
    *,
    labelled: int,
    sparse_grad: bool = False,
) -> Tensor:
    """Label-masked binary cross-entropy (ave-label-masking, 4.2), mean over labelled products.

    Args:
        features: [B, D]; or [B, M, D] of M members, each with a loss of its own: their mean.
        mask_rows: [B], int64; -1: the product has no labels to learn from, so no loss.
        positive_indptr, positive_indices: the positive label rows as CSR, [B + 1] and [P], int64.
        labelled: products with labels that the mean is over; these may be a part of them.
        sparse_grad: give the head gradients of the rows alone that the masks let count.
    """
    each: list[tuple[Tensor, Tensor]] = [(features, head.weight)]
    if features.dim() == 3 and features.shape[1] == 1:
        each = [(features[:, 0], head.weight)]
    elif features.dim() == 3:
        weights = head.weight.view(-1, *features.shape[1:])
        # A product reads rows that lie together.
        each = [
            (x.contiguous(), w.contiguous())
            for x, w in zip(features.unbind(1), weights.unbind(1), strict=True)
        ]
    losses = [
        masked_bce(
            of_member,
            weight,
            head.bias,
            masks.indptr,
            masks.indices,
            mask_rows,
            positive_indptr,
            positive_indices,
            reduction="sum",
            sparse_grad=sparse_grad,
        )
        for of_member, weight in each
    ]
    return torch.stack(losses).mean() / max(1, labelled)
