"""Adam that moves, and remembers, nothing but the rows that a step reached.

For tables and classifiers of which a batch touches few rows: the moments of the others must not
move them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["RowAdam"]


class RowAdam(torch.optim.SparseAdam):
    """torch's SparseAdam; in a dense gradient, rows of zeros are rows that were not reached.

    Processes average gradients as dense ones where NCCL does it, which has no sparse ones.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, lr=lr)
        self.register_step_pre_hook(_take_rows)


def _take_rows(optimizer: torch.optim.Optimizer, _args: Any, _options: Any) -> None:
    """Make dense gradients sparse."""
    for group in optimizer.param_groups:
        for table in group["params"]:
            if table.grad is not None and not table.grad.is_sparse:
                table.grad = _reached(table.grad)


def _reached(grad: Tensor) -> Tensor:
    """The gradient [R, ...] with the rows alone that are not zero."""
    rows = grad.flatten(1).any(dim=1) if grad.dim() > 1 else grad != 0
    places = rows.nonzero()[:, 0]
    return torch.sparse_coo_tensor(
        places[None], grad[places], grad.shape, check_invariants=False, is_coalesced=True
    )
