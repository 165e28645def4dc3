"""Problems for the label-masked ops, and what they should come to in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DTYPES", "SHAPES", "Problem", "make_problem"]

# Features, weight.
DTYPES = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.bfloat16),
)
# B, D, L, C: ones, primes, a block and its neighbours.
SHAPES = (
    (1, 1, 1, 1),
    (5, 7, 13, 3),
    (16, 64, 64, 1),
    (17, 65, 63, 2),
    (15, 40, 131, 7),
)


@dataclass(frozen=True)
class Problem:
    """Arguments of ``masked_scores`` and, dense, what they mean.

    Attributes:
        relevant: [B, L], bool; positive: [B, L], bool, relevant or not.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor
    mask_indptr: Tensor
    mask_indices: Tensor
    mask_rows: Tensor
    relevant: Tensor
    positive: Tensor

    @property
    def heads(self) -> tuple[Tensor, ...]:
        """The six first arguments of every op."""
        return (
            self.features,
            self.weight,
            self.bias,
            self.mask_indptr,
            self.mask_indices,
            self.mask_rows,
        )

    @property
    def positives(self) -> tuple[Tensor, Tensor]:
        """Positive labels as CSR."""
        return csr(self.positive)

    def logits(self, dtype: torch.dtype) -> Tensor:
        """Dense logits, [B, L], of the given values, computed in ``dtype``."""
        x, w, b = (each.to(dtype) for each in (self.features, self.weight, self.bias))
        return x @ w.t() + b


def csr(dense: Tensor) -> tuple[Tensor, Tensor]:
    """Row pointers and columns of a bool matrix."""
    indptr = torch.zeros(len(dense) + 1, dtype=torch.int64, device=dense.device)
    torch.cumsum(dense.sum(1), 0, out=indptr[1:])
    return indptr, dense.nonzero()[:, 1].contiguous()


def make_problem(
    shape: tuple[int, int, int, int],
    dtypes: tuple[torch.dtype, torch.dtype] = DTYPES[0],
    *,
    seed: int = 0,
    share: float = 0.3,
    device: str = "cpu",
) -> Problem:
    """A random problem: the second mask row is empty, some products have no row."""
    num_products, num_features, num_labels, num_masks = shape
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_masks, num_labels, generator=generator) < share
    mask[:1, :1] = True
    mask[1:2] = False
    rows = torch.randint(
        -1 if num_products > 1 else 0, num_masks, (num_products,), generator=generator
    )
    features = torch.randn(num_products, num_features, generator=generator)
    weight = torch.randn(num_labels, num_features, generator=generator) / num_features**0.5
    bias = torch.randn(num_labels, generator=generator)
    positive = torch.rand(num_products, num_labels, generator=generator) < 0.2
    tensors = (
        features.to(dtypes[0]),
        weight.to(dtypes[1]),
        bias,
        *csr(mask),
        rows,
        mask[rows.clamp(min=0)] & (rows >= 0)[:, None],
        positive,
    )
    return Problem(*(tensor.to(device) for tensor in tensors))
