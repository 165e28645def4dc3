"""What lies between the parts of a flagship that read a product and its heads.

Legend: B products, M members, E encoder features, D features of a member, K width of a category's
embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bags import BagInput, HashedBag
from models.members import MemberLinear

__all__ = ["CategoryTold", "FeatureMixer"]


class FeatureMixer(nn.Module):
    """Encoder features and hashed bags to the features that all heads read.

    Each part has a norm of its own; the hidden layer adds what the parts say together, in each
    member by itself::

        x = concat(norm(encoded), norm(bag), norm(rest), norm(bullets), norm(whole))
        features = x + gelu(W x + b)

    The last ``whole_members`` read, of the bags, that of all fields alone, and zeros for the
    others (the hidden layer makes something of these places too): they err apart from those that
    read each field by itself.

    Args:
        encoder_features: E; 0: there is no encoder.
        bag_rows, rest_rows, bullets_rows, whole_rows: of the tables; 0: there is no such bag.
        bag_dim: of each member.
        hidden: whether there is a hidden layer.
        members: M.
        whole_members: fewer than M; 0 without a bag of all fields.
        dropout: share of features left out in training, before and within the hidden layer.
        bag_std: of the tables' first weights.
    """

    def __init__(
        self,
        *,
        encoder_features: int,
        bag_rows: int,
        rest_rows: int,
        bag_dim: int,
        hidden: bool,
        bullets_rows: int = 0,
        whole_rows: int = 0,
        dropout: float = 0.0,
        bag_std: float = 0.2,
        members: int = 1,
        whole_members: int = 0,
    ) -> None:
        super().__init__()
        self.members = members
        apart = members - whole_members
        self.norm = nn.LayerNorm(encoder_features) if encoder_features else None
        self.bag = HashedBag(bag_rows, bag_dim, bag_std, apart)
        self.bag_norm = nn.LayerNorm(bag_dim)
        self.rest_bag = HashedBag(rest_rows, bag_dim, bag_std, apart) if rest_rows else None
        self.rest_norm = nn.LayerNorm(bag_dim) if rest_rows else None
        self.bullets_bag = (
            HashedBag(bullets_rows, bag_dim, bag_std, apart) if bullets_rows else None
        )
        self.bullets_norm = nn.LayerNorm(bag_dim) if bullets_rows else None
        self.whole_bag = HashedBag(whole_rows, bag_dim, bag_std, members) if whole_rows else None
        self.whole_norm = nn.LayerNorm(bag_dim) if whole_rows else None
        self.dropout = dropout
        self.num_features = encoder_features + bag_dim * len(self.bags)
        self.hidden: MemberLinear | None = None
        if hidden:
            self.hidden = MemberLinear(members, self.num_features, self.num_features)

    @property
    def bags(self) -> tuple[HashedBag, ...]:
        """The tables: title's, rest's, bullets', all fields', as far as there are any."""
        bags = (self.bag, self.rest_bag, self.bullets_bag, self.whole_bag)
        return tuple(bag for bag in bags if bag is not None)

    def forward(self, encoded: Tensor | None, *given: BagInput) -> Tensor:
        """Features [B, M, D] of encoded [B, E] (None without an encoder) and an input a bag."""
        parts = []
        if self.norm is not None and encoded is not None:
            parts.append(self.norm(encoded).unsqueeze(1).expand(-1, self.members, -1))
        norms = (self.bag_norm, self.rest_norm, self.bullets_norm, self.whole_norm)
        present = (norm for norm in norms if norm is not None)
        for bag, norm, of_bag in zip(self.bags, present, given, strict=True):
            part = norm(bag(of_bag))
            parts.append(functional.pad(part, (0, 0, 0, self.members - bag.members)))
        features = self._dropped(torch.cat(parts, dim=2))
        if self.hidden is None:
            return features
        return features + self._dropped(functional.gelu(self.hidden(features)))

    def _dropped(self, features: Tensor) -> Tensor:
        return functional.dropout(features, self.dropout, self.training)


class CategoryTold(nn.Module):
    """Features as the attribute head reads them where it is told the category.

    The mask says what a category's products can have; an embedding says what they tend to have::

        told = concat(x + gelu(W concat(x, e) + b), e), e the category's embedding

    Args:
        num_categories: rows of the category label space.
        dim: of each member's embedding.
    """

    def __init__(self, num_features: int, num_categories: int, dim: int, members: int = 1) -> None:
        super().__init__()
        # Row 0 stands for no category, and stays zero.
        self.embedding = nn.Embedding(num_categories + 1, members * dim, padding_idx=0)
        self.hidden = MemberLinear(members, num_features + dim, num_features)
        self.members = members
        self.num_features = num_features + dim

    def forward(self, features: Tensor, category_rows: Tensor) -> Tensor:
        """[B, M, D + K] of features [B, M, D] and category rows [B], int64, -1: none."""
        told = self.embedding(category_rows + 1).view(len(category_rows), self.members, -1)
        both = torch.cat([features, told], dim=2)
        return torch.cat([features + functional.gelu(self.hidden(both)), told], dim=2)
