from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.bags import BagInput, HashedBag, Vocabulary, mean_input, of_members, without_some
from models.prepare import Ragged

CPU = torch.device("cpu")


def ragged(*rows: list[int]) -> Ragged:
    flat = np.array([each for row in rows for each in row], dtype=np.int32)
    return Ragged(flat, np.cumsum([0, *map(len, rows)]))


PRODUCTS = ragged([3, 7], [], [3], [3, 5, 9])


def test_a_vocabulary_is_of_what_enough_products_have() -> None:
    known = Vocabulary.of(PRODUCTS, 11, min_count=1)
    assert known.buckets.tolist() == [3, 5, 7, 9]
    np.testing.assert_allclose(known.idf, 1 + np.log(4 / np.array([3, 1, 1, 1])), rtol=1e-6)
    assert Vocabulary.of(PRODUCTS, 11, min_count=2).buckets.tolist() == [3]
    assert len(Vocabulary.of(PRODUCTS, 11, min_count=9).buckets) == 1


def test_a_vocabulary_is_of_the_rows_that_count() -> None:
    known = Vocabulary.of(PRODUCTS, 11, min_count=1, rows=np.array([0, 1]))
    assert known.buckets.tolist() == [3, 7]
    np.testing.assert_allclose(known.idf, 1 + np.log(2 / np.array([1, 1])), rtol=1e-6)


def test_unknown_ids_have_no_row_and_weights_have_length_one() -> None:
    known = Vocabulary.of(PRODUCTS, 11, min_count=1)
    given = known(ragged([3, 4, 9], [0, 10], [], [5]))
    assert given.rows.tolist() == [0, 3, 1]
    assert given.offsets.tolist() == [0, 2, 2, 2]
    assert given.weights[2] == 1
    assert float(given.weights[:2].square().sum()) == pytest.approx(1, abs=1e-6)
    assert given.weights[1] > given.weights[0]


def test_without_a_vocabulary_a_bag_is_a_mean() -> None:
    torch.manual_seed(0)
    bag = HashedBag(10, 3)
    found = bag(mean_input(PRODUCTS, CPU))
    torch.testing.assert_close(found[0, 0], bag.weight[[3, 7]].mean(dim=0))
    assert found[1].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_are_those_of_a_plain_sum(sparse: bool) -> None:
    torch.manual_seed(1)
    bag = HashedBag(6, 4)
    bag.sparse = sparse
    rows = torch.tensor([5, 0, 5, 2, 2])
    given = BagInput(rows, torch.tensor([0, 2, 2, 3]), torch.rand(5))
    grad = torch.rand(4, 4)
    bag(given).backward(grad[:, None])
    twin = bag.weight.detach().clone().requires_grad_()
    weighted = functional.embedding(rows, twin) * given.weights[:, None]
    owners = torch.tensor([0, 0, 2, 3, 3])
    wanted = torch.zeros(4, 4).index_add(0, owners, weighted)
    torch.testing.assert_close(bag(given)[:, 0], wanted)
    wanted.backward(grad)
    found = bag.weight.grad
    assert found is not None
    assert twin.grad is not None
    assert found.is_sparse == sparse
    if sparse:
        assert found._indices()[0].tolist() == [0, 2, 5]
        found = found.to_dense()
    torch.testing.assert_close(found, twin.grad)


def test_a_batch_of_empty_products() -> None:
    bag = HashedBag(6, 4)
    bag(mean_input(ragged([], []), CPU)).sum().backward()
    assert bag.weight.grad is not None
    assert bag.weight.grad.to_dense().abs().sum() == 0


def test_some_ids_are_left_out() -> None:
    torch.manual_seed(2)
    whole = ragged(list(range(500)), [], list(range(300)))
    thin = without_some(whole, 0.3)
    assert len(thin) == 3
    assert thin.lengths[1] == 0
    assert 300 < thin.lengths[0] < 400
    assert set(thin.values[: thin.lengths[0]].tolist()) < set(range(500))
    assert without_some(whole, 0) is whole


def test_members_read_rows_of_their_own() -> None:
    torch.manual_seed(3)
    bag = HashedBag(6, 4, members=2)
    first = BagInput(torch.tensor([5, 0, 2]), torch.tensor([0, 2]), torch.rand(3))
    second = BagInput(torch.tensor([1, 5]), torch.tensor([0, 1]), torch.rand(2))
    found = bag(of_members([first, second]))
    assert found.shape == (2, 2, 4)
    table = bag.weight.view(6, 2, 4)
    torch.testing.assert_close(found[1, 0], first.weights[2] * table[2, 0])
    torch.testing.assert_close(found[1, 1], second.weights[1] * table[5, 1])
    found[:, 1].sum().backward()
    grad = bag.weight.grad
    assert grad is not None
    assert grad.to_dense().view(6, 2, 4)[:, 0].abs().sum() == 0


def test_what_is_shared_is_read_alike_with_and_without_gradients() -> None:
    torch.manual_seed(3)
    bag = HashedBag(6, 4, members=3)
    given = BagInput(torch.tensor([5, 0, 2]), torch.tensor([0, 0, 2]), torch.rand(3))
    with torch.no_grad():
        found = bag(given)
    torch.testing.assert_close(found, bag(given))
    torch.testing.assert_close(found, bag(of_members([given] * 3)))


@torch.no_grad()
def test_a_table_of_half_the_width_sums_the_same_up_to_rounding() -> None:
    torch.manual_seed(4)
    bag = HashedBag(60, 8, members=2)
    lengths = torch.tensor([30, 0, 12, 18])
    given = BagInput(torch.randint(60, (60,)), lengths.cumsum(0) - lengths, torch.rand(60))
    wanted = bag(given)
    rows = bag.weight.view(60, 2, 8)[given.rows].abs() * given.weights[:, None, None]
    owners = torch.repeat_interleave(torch.arange(4), lengths)
    magnitude = torch.zeros(4, 2, 8).index_add(0, owners, rows)
    found = bag.half()(given)
    assert bag.weight.dtype == torch.float16
    assert found.dtype == torch.float32
    # Weight, its factor and the sum are each rounded to 11 bits.
    assert bool(((found - wanted).abs() <= 3 * 2**-11 * magnitude).all())
    assert not torch.equal(found, wanted)
