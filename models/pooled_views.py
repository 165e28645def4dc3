"""The body of dhpc-amazon's baseline: embeddings from scratch, pooled by view (E.1.1).

Views are title, description and bullets; an absent one pools to zeros.

Legend: B products, T tokens in all, V views, K width of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.segments import NUM_SEGMENTS

__all__ = ["PooledViews"]


class PooledViews(nn.Module):
    """The mean embedding of each view's tokens, side by side: features [B, V * K].

    Args:
        vocabulary: token ids are below this.
        width: K.
        sparse: gradients of touched rows only, for ``torch.optim.SparseAdam``.
    """

    def __init__(self, vocabulary: int, width: int, *, sparse: bool = False) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(vocabulary, width, mode="mean", sparse=sparse)
        # The pooled mean of some tens of them goes into a linear layer as it is.
        nn.init.normal_(self.bag.weight, std=0.2)
        self.num_features = NUM_SEGMENTS * width

    def check_reads(self, vocabulary: int, max_tokens: int) -> None:
        """Refuse a tokenizer whose ids go beyond the table; rows may be of any length.

        Raises:
            ModelError: they do.
        """
        if vocabulary > self.bag.num_embeddings:
            raise ModelError(
                f"the tokenizer has ids up to {vocabulary - 1:,}, the table has "
                f"{self.bag.num_embeddings:,} rows: they do not belong together"
            )

    def forward(self, input_ids: Tensor, segment_ids: Tensor, lengths: Tensor) -> Tensor:
        """Features [B, V * K], float32.

        Args:
            input_ids: [T], flat, product by product and within it segment by segment.
            segment_ids: [T], int64, below V; never falling within a product.
            lengths: [B], int64, tokens of each product.
        """
        num_products = len(lengths)
        owners = torch.repeat_interleave(torch.arange(num_products, device=lengths.device), lengths)
        counts = torch.bincount(
            owners * NUM_SEGMENTS + segment_ids, minlength=num_products * NUM_SEGMENTS
        )
        offsets = counts.cumsum(0) - counts
        pooled: Tensor = self.bag(input_ids, offsets)
        return pooled.reshape(num_products, self.num_features)
