from __future__ import annotations

import copy

import pytest
import torch

from training.row_adam import RowAdam


@pytest.mark.parametrize("shape", [(5, 3), (5,)], ids=["table", "bias"])
def test_dense_and_sparse_gradients_make_the_same_steps(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start = torch.rand(shape)
    tables = [torch.nn.Parameter(start.clone()) for _ in range(3)]
    ours, by_rows = RowAdam(tables[:1], lr=0.1), RowAdam(tables[1:2], lr=0.1)
    torchs = torch.optim.SparseAdam(tables[2:], lr=0.1)
    for rows in ([0, 3], [3], [0]):
        grad = torch.sparse_coo_tensor(
            [rows], torch.rand(len(rows), *shape[1:]), shape, check_invariants=True
        )
        for table, given in zip(tables, (grad.to_dense(), grad, grad), strict=True):
            table.grad = given
        for optimizer in (ours, by_rows, torchs):
            optimizer.step()
        assert torch.equal(tables[0], tables[1])
        assert torch.equal(tables[0], tables[2])
    assert torch.equal(tables[0][[1, 2, 4]], start[[1, 2, 4]])
    assert not torch.equal(tables[0][[0, 3]], start[[0, 3]])


def test_moments_of_earlier_steps_move_no_row_that_this_one_misses() -> None:
    table = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = RowAdam([table], lr=0.1)
    table.grad = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    optimizer.step()
    first = table.detach()[0].clone()
    table.grad = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    optimizer.step()
    assert torch.equal(table[0], first)
    assert table.detach()[1, 0].item() != 0


def test_a_state_is_taken_up_again() -> None:
    table = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = RowAdam([table], lr=0.1)
    grads = [torch.tensor([[0.5] * 3, [0.0] * 3]), torch.tensor([[0.0] * 3, [0.5] * 3])]
    table.grad = grads[0].clone()
    optimizer.step()
    twin = torch.nn.Parameter(table.detach().clone())
    other = RowAdam([twin], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, held in ((optimizer, table), (other, twin)):
        held.grad = grads[1].clone()
        each.step()
    assert torch.equal(table, twin)
