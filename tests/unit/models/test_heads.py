from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.device_masks import DeviceMasks
from models.heads import AttributeHead, CascadeHead, best_rows
from models.labels import Masks


def cascade(departments: list[int], features: int = 3) -> CascadeHead:
    torch.manual_seed(0)
    return CascadeHead(features, departments)


def test_a_hand_computed_cascade() -> None:
    """Departments 0 = {a, b}, 1 = {c}; softmax of (log 3, 0) is (3/4, 1/4)."""
    head = cascade([0, 0, 1])
    scores = head.log_scores_from(
        torch.tensor([[math.log(3), 0.0]]),
        torch.tensor([[math.log(4), 0.0, -50.0]]),
        torch.ones(2),
    ).exp()
    torch.testing.assert_close(scores, torch.tensor([[0.75 * 0.8, 0.75 * 0.2, 0.25]]))


def test_temperatures_soften_each_factor() -> None:
    head = cascade([0, 0, 1])
    scores = head.log_scores_from(
        torch.tensor([[2 * math.log(3), 0.0]]),
        torch.tensor([[3 * math.log(4), 0.0, 7.0]]),
        torch.tensor([2.0, 3.0]),
    ).exp()
    torch.testing.assert_close(scores, torch.tensor([[0.75 * 0.8, 0.75 * 0.2, 0.25]]))


def test_scores_sum_to_one_and_survive_far_off_departments() -> None:
    head = cascade([1, 0, 1, 2, 0])
    leaf = torch.tensor([[500.0, -500.0, 499.0, 0.0, -501.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    scores = head.log_scores_from(torch.zeros(2, 3), leaf, torch.ones(2)).exp()
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))
    # exp(-500) against exp(-501): the share within a department knows no other department.
    torch.testing.assert_close(scores[0, 1] / scores[0, 4], torch.tensor(math.e))


def test_gradients_are_those_of_the_plain_formula() -> None:
    head = cascade([1, 0, 1, 2, 0])
    department = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    leaf = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda d, u: head.log_scores_from(d, u, ones), (department, leaf)
    )


def test_best_leaves_first_and_the_lowest_row_among_equals() -> None:
    head = cascade([0, 0, 0, 0], features=1)
    with torch.no_grad():
        head.leaf.weight.zero_()
        head.leaf.bias.copy_(torch.tensor([1.0, 2.0, 2.0, 0.0]))
    found = head.best(torch.zeros(2, 1), 3)
    assert found.rows.tolist() == [[1, 2, 0], [1, 2, 0]]
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert bool((np.diff(found.scores, axis=1) <= 0).all())
    assert head.best(torch.zeros(2, 1), 9).rows.shape == (2, 4)
    assert head.best(torch.zeros(0, 1), 2).rows.shape == (0, 2)


@pytest.mark.parametrize("top_k", [1, 2, 5, 7, 9])
def test_best_rows_is_a_stable_sort(top_k: int) -> None:
    torch.manual_seed(1)
    scores = torch.randint(0, 4, (200, 7)).float()
    wanted = scores.sort(dim=1, descending=True, stable=True)[1][:, :top_k]
    assert torch.equal(best_rows(scores, top_k), wanted)


def test_attributes_are_relevant_above_threshold_and_best_first() -> None:
    head = AttributeHead(1, 4)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 3.0]))
    masks = DeviceMasks.from_masks(
        Masks.from_rows([np.array([0, 1, 2], dtype=np.uint32), np.array([3], dtype=np.uint32)], 4),
        torch.device("cpu"),
    )
    thresholds = torch.tensor([0.6, 0.5, 0.5, 0.99])
    found = head.labels_above(torch.zeros(3, 1), masks, np.array([0, -1, 1]), thresholds)
    assert found.indptr.tolist() == [0, 2, 2, 2]
    assert found.rows.tolist() == [1, 2]
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-2.0, -1.0])), rtol=1e-6)
    assert found.scores.dtype == np.float32
