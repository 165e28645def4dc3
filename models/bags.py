"""Bags of hashed n-grams: bucket ids to one weighted sum of embeddings a product.

A bucket has a row of the table always, or only where a vocabulary of training products holds it:
then what was seen once, which says nothing of the next product, costs no memory, and a row weighs
as much as its n-gram is rare.

Legend: B products, M members that read the bag, R rows of the table, D width of a member's
embeddings, nnz ids of all products together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.prepare import Ragged

__all__ = ["BagInput", "HashedBag", "Vocabulary", "mean_input", "of_members", "without_some"]


class BagInput(NamedTuple):
    """Rows [nnz], where each product's begin [B], both int64, and their weights [nnz], float32.

    All members read the same, unless ``of_members`` made it.
    """

    rows: Tensor
    offsets: Tensor
    weights: Tensor
    is_shared: bool = True


def of_members(given: Sequence[BagInput]) -> BagInput:
    """What each member reads: M * B bags, a member's products together, of a table's R * M rows."""
    members = len(given)
    rows = torch.cat([each.rows * members + member for member, each in enumerate(given)])
    starts = np.cumsum([0, *(len(each.rows) for each in given[:-1])]).tolist()
    offsets = torch.cat([each.offsets + start for each, start in zip(given, starts, strict=True)])
    return BagInput(rows, offsets, torch.cat([each.weights for each in given]), is_shared=False)


class Vocabulary(nn.Module):
    """The buckets that have a row, and the inverse document frequency of each.

    Args:
        num_rows: R, at least 1.
    """

    buckets: Tensor
    idf: Tensor

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.register_buffer("buckets", torch.zeros(num_rows, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(num_rows))

    @classmethod
    def of(
        cls,
        hashed: Ragged,
        num_buckets: int,
        min_count: int,
        rows: NDArray[np.int64] | None = None,
    ) -> Vocabulary:
        """Buckets that ``min_count`` of N products have, each with ``1 + log(N / products)``.

        Args:
            hashed: rows of distinct buckets. rows: [N], those that count; None: all.
        """
        if rows is None:
            rows = np.arange(len(hashed))
        counts = np.zeros(num_buckets, dtype=np.int64)
        # In parts: what lies on disk may be larger than memory.
        for first in range(0, len(rows), _COUNTED_AT_ONCE):
            part = hashed.take(rows[first : first + _COUNTED_AT_ONCE]).values
            counts += np.bincount(part.astype(np.int64), minlength=num_buckets)
        kept = np.flatnonzero(counts >= min_count)
        if not len(kept):
            kept = np.zeros(1, dtype=np.int64)
        made = cls(len(kept))
        made.buckets.copy_(torch.from_numpy(kept.astype(np.int32)))
        made.idf.copy_(
            1 + torch.log(max(1, len(rows)) / torch.from_numpy(counts[kept]).clamp(min=1))
        )
        return made

    def forward(self, hashed: Ragged) -> BagInput:
        """Known ids as rows; a product's weights are its rows' idf, scaled to length one."""
        device = self.buckets.device
        ids = torch.from_numpy(hashed.values.astype(np.int32, copy=False)).to(device)
        rows = torch.searchsorted(self.buckets, ids).clamp_(max=len(self.buckets) - 1)
        known = self.buckets[rows] == ids
        rows = rows[known]
        before = torch.cat([known.new_zeros(1, dtype=torch.int64), known.cumsum(0)])
        indptr = before[torch.from_numpy(hashed.indptr).to(device)]
        weights = self.idf[rows]
        owners = torch.repeat_interleave(
            torch.arange(len(hashed), device=device), indptr.diff(), output_size=len(rows)
        )
        squares = weights.new_zeros(len(hashed)).index_add_(0, owners, weights.square())
        return BagInput(rows, indptr[:-1], weights * squares.rsqrt()[owners])


# Products whose ids are int64 at a time: some 100 MB.
_COUNTED_AT_ONCE = 20_000


def mean_input(hashed: Ragged, device: torch.device) -> BagInput:
    """Ids as rows, a product's weights alike and one in sum."""
    lengths = hashed.lengths
    weights = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
    return BagInput(
        torch.from_numpy(hashed.values.astype(np.int64)).to(device, non_blocking=True),
        torch.from_numpy(hashed.indptr[:-1].astype(np.int64)).to(device, non_blocking=True),
        torch.from_numpy(weights).to(device, non_blocking=True),
    )


def without_some(hashed: Ragged, share: float) -> Ragged:
    """Every id is left out with probability ``share``, by torch's random state."""
    if share == 0:
        return hashed
    kept = (torch.rand(len(hashed.values)) >= share).numpy()
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept, dtype=np.int64)])
    return Ragged(hashed.values[kept], before[hashed.indptr])


class HashedBag(nn.EmbeddingBag):
    """``sum(weight[row] * w for row, w of the product)``.

    A served table may be float16 (``.half()``): half the memory, weights rounded to 11 bits. It is
    read without gradients only.

    An ``EmbeddingBag`` by its parameter and ``sparse``, which is how several processes know that
    its gradients are of few rows.

    Args:
        std: of the first weights. The norm behind makes their scale free: it sets how far a step
            of the optimiser moves one, so what a rare row has learned stands out of its noise.
        members: M; each has a table of its own.

    Attributes:
        sparse: gradients are of touched rows only, each once and in order, for optimisers that
            know them.
    """

    def __init__(self, num_rows: int, dim: int, std: float = 0.2, members: int = 1) -> None:
        # A row's embeddings of all members lie side by side.
        first = nn.init.normal_(torch.empty(num_rows * members, dim), std=std)
        super().__init__(len(first), dim, mode="sum", sparse=True, _weight=first)
        self.members = members

    def forward(self, given: BagInput) -> Tensor:  # type: ignore[override]
        """[B, M, D], float32."""
        rows, offsets, weights, is_shared = given
        if is_shared and not torch.is_grad_enabled():
            # One row of all members is read at once.
            table = self.weight.view(-1, self.members * self.embedding_dim)
            summed = functional.embedding_bag(
                rows, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype)
            )
            return summed.float().view(-1, self.members, self.embedding_dim)
        if is_shared:
            rows, offsets, weights, _ = of_members([given] * self.members)
        apart: Tensor = _WeightedSum.apply(self.weight, rows, offsets, weights, self.sparse)
        return apart.view(self.members, -1, self.embedding_dim).transpose(0, 1)


class _WeightedSum(torch.autograd.Function):
    """An embedding bag whose backward never holds a row for each id: both ways are one such sum."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor, sparse: bool
    ) -> Tensor:
        ctx.save_for_backward(rows, offsets, weights)
        ctx.shape, ctx.sparse = weight.shape, sparse
        return functional.embedding_bag(
            rows, weight, offsets, mode="sum", per_sample_weights=weights
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, offsets, weights = ctx.saved_tensors
        (grad,) = grads
        ends = torch.cat([offsets[1:], offsets.new_tensor([len(rows)])])
        owners = torch.repeat_interleave(
            torch.arange(len(offsets), device=rows.device), ends - offsets, output_size=len(rows)
        )
        ordered, order = torch.sort(rows, stable=True)
        touched, counts = torch.unique_consecutive(ordered, return_counts=True)
        of_touched = functional.embedding_bag(
            owners[order],
            grad.contiguous(),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weights[order],
        )
        if ctx.sparse:
            found = torch.sparse_coo_tensor(
                touched[None], of_touched, ctx.shape, check_invariants=False, is_coalesced=True
            )
        else:
            found = of_touched.new_zeros(ctx.shape).index_copy_(0, touched, of_touched)
        return found, None, None, None, None
