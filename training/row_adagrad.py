"""Adagrad with one state a row: for tables of which a batch touches few rows, each rarely.

A row of an n-gram's embedding is one thing that is learned at one pace. Its state is a number, not
a second and a third table as Adam's, and a row that comes often slows down, where Adam's does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor

__all__ = ["RowAdagrad"]


class RowAdagrad(torch.optim.Optimizer):
    """``s += mean(g * g); row -= rate * g / (sqrt(s) + eps)`` for each touched row (Duchi 2011).

    Takes sparse and dense gradients; in a dense one, rows without a gradient stay as they are.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; a closure is called first, with gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, table.grad, group["lr"], group["eps"])
        return loss

    def _move(self, table: Tensor, grad: Tensor, rate: float, eps: float) -> None:
        state = self.state[table]
        if not state:
            state["squares"] = table.new_zeros(len(table))
        if grad.is_sparse:
            rows, values = _distinct(grad)
        else:
            rows = grad.abs().amax(dim=1).nonzero()[:, 0]
            values = grad[rows]
        squares = state["squares"][rows] + values.square().mean(dim=1)
        state["squares"][rows] = squares
        values = values * (-rate / (squares.sqrt() + eps)).unsqueeze(1)
        table.add_(
            torch.sparse_coo_tensor(
                rows[None], values, table.shape, check_invariants=False, is_coalesced=True
            )
        )


def _distinct(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Touched rows, each once, and their gradients."""
    # Autograd forgets that a gradient is coalesced: rows that rise need no second sum.
    rows = grad._indices()[0]  # noqa: SLF001 - indices() refuses what is not marked so
    if bool((rows[1:] > rows[:-1]).all()):
        return rows, grad._values()  # noqa: SLF001
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()
