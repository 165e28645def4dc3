"""Adam that moves, and remembers, nothing but the rows that a step reached.

For tables and classifiers of which a batch touches few rows: the moments of the others must not
move them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch

__all__ = ["RowAdam"]


class RowAdam(torch.optim.SparseAdam):
    """torch's SparseAdam; in a dense gradient, rows of zeros are rows that were not reached.

    Processes average gradients as dense ones where NCCL does it, which has no sparse ones.
    """

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; a closure is called first, with gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and not table.grad.is_sparse:
                    table.grad = _reached(table.grad)
        super().step()  # type: ignore[no-untyped-call]
        return loss


def _reached(grad: torch.Tensor) -> torch.Tensor:
    """The gradient [R, ...] with the rows alone that are not zero."""
    rows = grad.flatten(1).any(dim=1) if grad.dim() > 1 else grad != 0
    places = rows.nonzero()[:, 0]
    return torch.sparse_coo_tensor(
        places[None], grad[places], grad.shape, check_invariants=False, is_coalesced=True
    )
