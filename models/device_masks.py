"""Masks on the device where the model runs.

Apart from ``models.labels``: who reads products and taxonomies alone does not wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.labels import Masks

__all__ = ["DeviceMasks"]


@dataclass(frozen=True, slots=True)
class DeviceMasks:
    """Masks where the model runs.

    Args:
        indptr: [C + 1], int64, on the device.
        indices: [nnz], int64, on the device.
    """

    indptr: Tensor
    indices: Tensor

    @classmethod
    def from_masks(cls, masks: Masks, device: torch.device) -> DeviceMasks:
        """A copy of ``masks`` on ``device``."""
        return cls(
            torch.from_numpy(masks.indptr).to(device),
            torch.from_numpy(masks.indices.astype(np.int64)).to(device),
        )

    def pairs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Owner in [0, B) and label row of each relevant pair, int64, of mask rows [B]; -1: none.

        In the order of ``kernels.masked_scores``.
        """
        # A row of no labels at the end is that of -1, and of masks without any row.
        ends = torch.cat([self.indptr, self.indptr[-1:]])
        starts = ends[rows]
        lengths = ends[torch.where(rows >= 0, rows + 1, rows)] - starts
        owners = torch.repeat_interleave(lengths)
        shifts = starts - (lengths.cumsum(0) - lengths)
        places = torch.arange(len(owners), device=rows.device) + shifts[owners]
        return owners, self.indices[places]
