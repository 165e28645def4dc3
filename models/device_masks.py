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
