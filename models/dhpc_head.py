"""The feed-forward network behind a body (dhpc-amazon, C.1).

Legend: B products, E features, H width, N classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ClassifierHead"]


class _BatchNorm(nn.Module):
    """Batch norm that takes a batch of one: by the statistics so far, which it does not change.

    Equals ``nn.BatchNorm1d``, but counts no batches: a count is no weight, and averages of weights
    would average it.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """[B, H] of [B, H]."""
        return functional.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training and len(features) > 1,
        )


class ClassifierHead(nn.Module):
    """Linear layers with batch norm, ReLU and dropout between them; a logit for each class.

    Args:
        num_layers: of linear layers, at least 1; the paper has two. width: H, between them.
        dropout: share of the last layer's input that is left out in training, and of every
            hidden layer's output.
    """

    def __init__(
        self, num_features: int, num_classes: int, num_layers: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(num_layers - 1):
            hidden += [
                nn.Linear(num_features, width),
                _BatchNorm(width),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
            num_features = width
        if num_layers == 1:
            hidden.append(nn.Dropout(dropout))
        self.hidden = nn.Sequential(*hidden)
        self.last = nn.Linear(num_features, num_classes)
        # Every score begins at the share of one class: the loss is not spent on learning that
        # most labels do not hold.
        nn.init.constant_(self.last.bias, -math.log(max(1, num_classes - 1)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, N] of features [B, E]."""
        logits: Tensor = self.last(self.hidden(features))
        return logits
