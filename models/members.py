"""Several small networks in one: trained each by itself, asked as one.

Members begin apart and stay so: none has a part in another's loss. What they say together errs less
than a single network of their width (deep ensembles; Lakshminarayanan et al. 2017), and costs as
much: a table holds a row of all of them side by side, and a head reads them in one product.

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
