"""The ops as a module that holds their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels.masked_scores import masked_scores, masked_scores_above, masked_top_k

__all__ = ["MaskedLinear"]


class MaskedLinear(nn.Module):
    """One linear layer to all labels, read only where a product's mask allows.

    Equals ``sigmoid(nn.Linear(num_features, num_labels)(features) / temperature)`` at the relevant
    labels. Masks and keywords of the methods are those of ``kernels.masked_scores``. For training
    give ``weight`` and ``bias`` to ``kernels.masked_bce``.

    Args:
        bias: its first value: sigmoid(-3) = 0.05, near the share of relevant labels that hold.
    """

    def __init__(self, num_features: int, num_labels: int, *, bias: float = -3.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_labels, num_features))
        self.bias = nn.Parameter(torch.full((num_labels,), bias))
        nn.init.normal_(self.weight, std=0.02)

    def forward(
        self,
        features: Tensor,
        mask_indptr: Tensor,
        mask_indices: Tensor,
        mask_rows: Tensor,
        *,
        temperature: float = 1.0,
        num_entries: int | None = None,
        num_categories: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Every relevant label's score: see ``masked_scores``."""
        return masked_scores(
            features,
            self.weight,
            self.bias,
            mask_indptr,
            mask_indices,
            mask_rows,
            temperature=temperature,
            num_entries=num_entries,
            num_categories=num_categories,
        )

    def above(
        self,
        features: Tensor,
        mask_indptr: Tensor,
        mask_indices: Tensor,
        mask_rows: Tensor,
        *,
        threshold: Tensor | float,
        temperature: float = 1.0,
        num_entries: int | None = None,
        num_categories: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Relevant labels at or above their threshold: see ``masked_scores_above``."""
        return masked_scores_above(
            features,
            self.weight,
            self.bias,
            mask_indptr,
            mask_indices,
            mask_rows,
            threshold=threshold,
            temperature=temperature,
            num_entries=num_entries,
            num_categories=num_categories,
        )

    def top_k(
        self,
        features: Tensor,
        mask_indptr: Tensor,
        mask_indices: Tensor,
        mask_rows: Tensor,
        *,
        k: int,
        temperature: float = 1.0,
        num_entries: int | None = None,
        num_categories: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best relevant labels: see ``masked_top_k``."""
        return masked_top_k(
            features,
            self.weight,
            self.bias,
            mask_indptr,
            mask_indices,
            mask_rows,
            k=k,
            temperature=temperature,
            num_entries=num_entries,
            num_categories=num_categories,
        )
