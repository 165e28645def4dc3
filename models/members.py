"""Several small networks in one: each has a loss of its own, and their mean answers.

Deep ensembles (Lakshminarayanan et al. 2017) within one network: members begin at different
weights and share none but an encoder, the scales of norms and the biases of heads. Served they cost
no more than one network of their common width: a table holds the rows of all of them side by side,
and a head reads them in one product. What they are worth: docs/results/mwpd-flagship.md.

Legend: B products, M members, D features of each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MemberLinear", "joined", "member_logits"]


def joined(features: Tensor) -> Tensor:
    """[B, M, D] to [B, M * D] / M: a linear head then gives the mean of its members' logits."""
    flat = features.flatten(1)
    members = features.shape[1]
    return flat if members == 1 else flat / members


def member_logits(head: nn.Linear, features: Tensor) -> Tensor:
    """Each member's own logits [M * B, out], a member's products together.

    Args:
        head: of M * D features. features: [B, M, D].
    """
    weight = head.weight.view(-1, *features.shape[1:])
    return torch.einsum("bmd,omd->mbo", features, weight).flatten(0, 1) + head.bias


class MemberLinear(nn.Module):
    """A linear layer for each member: [B, M, in] to [B, M, out]."""

    def __init__(self, members: int, num_in: int, num_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_in)
        # Two dimensions, as nn.Linear's: one member's is one.
        self.weight = nn.Parameter(torch.empty(members * num_out, num_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members * num_out).uniform_(-bound, bound))
        self.members = members

    def forward(self, features: Tensor) -> Tensor:
        """[B, M, out]."""
        weight = self.weight.view(self.members, -1, features.shape[2])
        found: Tensor = torch.einsum("bmi,moi->bmo", features, weight)
        return found + self.bias.view(self.members, -1)
