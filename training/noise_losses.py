"""The loss of dhpc-amazon's classifiers with its strategies against noise (section D).

Legend: B products, H features of the last layer, N classes of the classifier.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kernels import masked_bce
from training.recipe import Strategy

__all__ = ["classifier_loss", "drawn_negatives"]


def classifier_loss(
    last: nn.Linear, hidden: Tensor, classes: Tensor, strategy: Strategy, step: int
) -> Tensor:
    """Mean over products of the binary cross-entropy over all classes of a classifier.

    With q_k = sigmoid(logit_k / T) (equation 10) and p_k the label, smoothed to
    (1 - s) p_k + s / N (equation 9), a product's loss is equation 8::

        - sum over positives of b p_k log q_k
        - N_neg / (sigma N) * sum over drawn negatives j of b (1 - p_j) log(1 - q_j)
        - sum over all k of (1 - b) q_k log q_k

    where b is 1 before step ``bootstrap_from`` and beta from then on (equation 7), and sigma the
    share of the N_neg negatives that is drawn: the one that whole classes make of the strategy's,
    or those of a classifier of few classes would weigh too much. Without drawing, every negative
    counts once and this is equation 6, for beta = 1 equation 5. The gradient runs through the q of
    the last term, as in Reed et al. 2014 (soft bootstrapping), whose target it is.

    Args:
        last: the classifier's last layer, [N, H]. hidden: [B, H]. classes: [B], int64.
        step: of the classifier, from 0.
    """
    num_products, num_classes = len(classes), last.out_features
    device = hidden.device
    each = torch.arange(num_products + 1, device=device)
    negative_indptr = negative_indices = negative_weight = None
    if strategy.negatives > 0 and num_classes > 1:
        drawn = drawn_negatives(classes, num_classes, strategy.negatives)
        negative_indptr = each * drawn.shape[1]
        negative_indices = drawn.reshape(-1)
        share = drawn.shape[1] / (num_classes - 1)
        factor = (num_classes - 1) / (share * num_classes)
        negative_weight = torch.full((num_products,), factor, device=device)
    return masked_bce(
        hidden,
        last.weight,
        last.bias,
        torch.tensor([0, num_classes], device=device),
        torch.arange(num_classes, device=device),
        torch.zeros(num_products, dtype=torch.int64, device=device),
        each,
        classes,
        temperature=strategy.temperature,
        label_smoothing=strategy.smoothing,
        smoothing_prior=1.0 / num_classes,
        bootstrap=strategy.bootstrap if step >= strategy.bootstrap_from else 1.0,
        negative_indptr=negative_indptr,
        negative_indices=negative_indices,
        negative_weight=negative_weight,
    )


def drawn_negatives(classes: Tensor, num_classes: int, share: float) -> Tensor:
    """For each product a share of the classes that are not its own, drawn without replacement.

    P(sigma) of equation 8 is uniform, as in the paper's own study (E.2.3).

    Args:
        classes: [B], int64. share: in (0, 1].

    Returns:
        [B, K], int64, K = ceil(share * (N - 1)).
    """
    count = math.ceil(share * (num_classes - 1))
    chances = torch.rand(len(classes), num_classes).to(classes.device)
    # The class itself comes last and is never among the first K.
    chances.scatter_(1, classes[:, None], 2.0)
    return chances.topk(count, dim=1, largest=False, sorted=False).indices
