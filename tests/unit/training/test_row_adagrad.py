from __future__ import annotations

import copy
import math

import torch

from training.row_adagrad import RowAdagrad


def test_steps_by_hand() -> None:
    table = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = RowAdagrad([table], lr=0.5)
    table.grad = torch.sparse_coo_tensor(
        [[1]], [[3.0, 4.0]], (3, 2), check_invariants=True, is_coalesced=True
    )
    optimizer.step()
    # The mean square of (3, 4) is 12.5.
    first = [-0.5 * each / math.sqrt(12.5) for each in (3, 4)]
    torch.testing.assert_close(table.detach()[1], torch.tensor(first))
    assert table.detach()[[0, 2]].tolist() == [[0, 0], [0, 0]]
    optimizer.step()
    second = [each - 0.5 * grad / 5 for each, grad in zip(first, (3, 4), strict=True)]
    torch.testing.assert_close(table.detach()[1], torch.tensor(second))


def test_dense_gradients_move_the_same_rows() -> None:
    torch.manual_seed(0)
    tables = [torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    values = torch.rand(2, 3)
    sparse = torch.sparse_coo_tensor([[0, 3]], values, (4, 3), check_invariants=True)
    for table, grad in zip(tables, (sparse, sparse.to_dense()), strict=True):
        table.grad = grad
        optimizer = RowAdagrad([table], lr=0.1)
        optimizer.step()
        optimizer.step()
    torch.testing.assert_close(*tables)


def test_a_state_is_taken_up_again() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.ones(2, 3))
    table.grad = torch.rand(2, 3)
    optimizer = RowAdagrad([table], lr=0.1)
    optimizer.step()
    twin = torch.nn.Parameter(table.detach().clone())
    twin.grad = table.grad
    other = RowAdagrad([twin], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    other.step()
    torch.testing.assert_close(table, twin, atol=0, rtol=0)
