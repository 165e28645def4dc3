"""Label scores that know their rivals, the other values of the same attribute, and are calibrated.

A head scores every label by itself (ave-label-masking, 4.2). Where a product has one value of an
attribute, what speaks for one value speaks against the others: a line in log odds, fitted on valid,
takes both in. With the head's score s of label j and the relevant labels k of its attribute::

    r(j)     = log(1/10 + sum over k other than j of sqrt(s_k / (1 - s_k)))
    score(j) = sigmoid(a logit(s_j) - b r(j) + c)

Labels of attributes that may have several values have a line of their own, without the rivals. On
market's valid, lines fitted on half of the titles and measured on the others, this gave 0.3 to 0.4
points of attribute micro F1, a softmax over the values in its place 0.1 to 0.2. Ours; the line is
Platt's (1999).

Legend: L labels, M scored (product, label) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

__all__ = ["Rivals"]

_NO_RIVAL = 0.1
# Scores are taken to lie within this: the odds of 0 and 1 say more than any model can know.
_LOWEST = 1e-6


class Rivals(nn.Module):
    """Calibrates scores; before its lines are fitted it leaves them as they are.

    Args:
        attribute_of: [L], as ``taxonomy.attribute_rows``; an attribute's labels lie together.

    Attributes:
        lines: [2, 3], float32: (a, b, c) of labels without and with rivals.
    """

    attribute_of: Tensor
    lines: Tensor

    def __init__(self, attribute_of: Sequence[int]) -> None:
        super().__init__()
        runs = [attribute for attribute, _ in groupby(attribute_of) if attribute >= 0]
        if len(runs) != len(set(runs)):
            raise ValueError("labels of one attribute do not lie together in the label space")
        self.register_buffer(
            "attribute_of", torch.tensor(list(attribute_of), dtype=torch.int64), persistent=False
        )
        self.register_buffer("lines", torch.tensor([[1.0, 0.0, 0.0]] * 2))
        self._num_groups = max(attribute_of, default=-1) + 2

    def evidence(self, scores: Tensor, owners: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """``logit(s)`` and r of each pair, [M] each, float64; r is 0 where there are no rivals.

        Args:
            scores: [M], of a product's every relevant label. owners, labels: [M], int64, the
                product and the label row of each, rising.
        """
        attributes = self.attribute_of[labels]
        # In float64: what is left of the sum without the pair itself may be a millionth of it.
        logits = torch.logit(scores.double(), eps=_LOWEST)
        rooted = (logits / 2).exp()
        keys = owners * self._num_groups + attributes + 1
        _, group = torch.unique_consecutive(keys, return_inverse=True)
        sums = torch.zeros_like(rooted).index_add_(0, group, rooted)
        others = (sums[group] - rooted).clamp_(min=0)
        return logits, torch.where(attributes >= 0, (_NO_RIVAL + others).log(), 0.0)

    def forward(self, scores: Tensor, owners: Tensor, labels: Tensor) -> Tensor:
        """Calibrated scores, [M], float32, of what ``evidence`` takes."""
        logits, rivals = self.evidence(scores, owners, labels)
        lines = self.lines.double()[(self.attribute_of[labels] >= 0).long()]
        found = lines[:, 0] * logits - lines[:, 1] * rivals + lines[:, 2]
        return torch.sigmoid(found).float()
