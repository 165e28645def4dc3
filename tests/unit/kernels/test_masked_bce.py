from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from kernels import masked_bce

WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
BIAS = torch.tensor([0.0, 0.5, -1.0, 0.0])
FEATURES = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-1.0, 1.0]])
MASKS = {
    "mask_indptr": torch.tensor([0, 2, 2, 5]),
    "mask_indices": torch.tensor([1, 3, 0, 1, 2]),
    "mask_rows": torch.tensor([2, 1, 0]),
}
# Product 0: label 2, label 3 is not relevant to it. Product 2: label 1, said twice.
POSITIVES = {
    "positive_indptr": torch.tensor([0, 2, 3, 5]),
    "positive_indices": torch.tensor([3, 2, 0, 1, 1]),
}


def softplus(x: float) -> float:
    return log(1 + exp(x))


# Logits of product 0: 1, 2.5, 2 (positive: the third); of product 2: 1.5 (positive), -3.
BY_HAND = [softplus(1) + softplus(2.5) + softplus(-2), 0.0, softplus(-1.5) + softplus(-3)]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("none", BY_HAND), ("sum", sum(BY_HAND)), ("mean", sum(BY_HAND) / 3)],
)
def test_loss_by_hand(reduction: Any, expected: Any) -> None:
    loss = masked_bce(FEATURES, WEIGHT, BIAS, **MASKS, **POSITIVES, reduction=reduction)
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_gradient_by_hand() -> None:
    """Of product 2 alone: slopes sigmoid(1.5) - 1 on label 1 and sigmoid(-3) on label 3."""
    features, weight, bias = (t.clone().requires_grad_() for t in (FEATURES[2:], WEIGHT, BIAS))
    masks = {**MASKS, "mask_rows": torch.tensor([0])}
    masked_bce(
        features,
        weight,
        bias,
        **masks,
        positive_indptr=torch.tensor([0, 1]),
        positive_indices=torch.tensor([1]),
    ).backward()
    one, three = 1 / (1 + exp(-1.5)) - 1, 1 / (1 + exp(3))
    torch.testing.assert_close(bias.grad, torch.tensor([0, one, 0, three]))
    torch.testing.assert_close(
        weight.grad, torch.tensor([[0, 0], [-one, one], [0, 0], [-three, three]])
    )
    torch.testing.assert_close(features.grad, torch.tensor([[2 * three, one - three]]))


def dense(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    entries = binary_cross_entropy_with_logits(
        features @ weight.T + bias, targets, reduction="none"
    )
    return (entries * mask).sum() / len(features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_dense_loss_and_its_gradients(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    num_labels, num_masks, num_products = 37, 5, 29
    mask = torch.rand(num_masks, num_labels, generator=generator) < 0.4
    rows = torch.randint(-1, num_masks, (num_products,), generator=generator)
    targets = torch.rand(num_products, num_labels, generator=generator) < 0.2
    relevant = mask[rows.clamp(min=0)] & (rows >= 0)[:, None]
    heads = [
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in [(num_products, 11), (num_labels, 11), (num_labels,)]
    ]
    ours = [tensor.clone().requires_grad_() for tensor in heads]
    exact = [tensor.double().requires_grad_() for tensor in heads]
    loss = masked_bce(
        *ours,
        torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]),
        mask.nonzero()[:, 1],
        rows,
        torch.cat([torch.zeros(1, dtype=torch.int64), targets.sum(1).cumsum(0)]),
        targets.nonzero()[:, 1],
    )
    wanted = dense(*exact, targets.double(), relevant)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, atol=0, rtol=1e-5)
    for tensor, oracle in zip(ours, exact, strict=True):
        assert tensor.grad is not None
        assert oracle.grad is not None
        assert tensor.grad.dtype == dtype
        torch.testing.assert_close(
            tensor.grad.double(), oracle.grad, atol=1e-5, rtol=2 * torch.finfo(dtype).eps
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction: Any) -> None:
    heads = [t.double().requires_grad_() for t in (FEATURES, WEIGHT, BIAS)]
    options: dict[str, Any] = {
        "temperature": 1.7,
        "reduction": reduction,
        "label_smoothing": 0.1,
        "positive_weight": torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64),
    }
    assert torch.autograd.gradcheck(
        lambda *inputs: masked_bce(*inputs, *MASKS.values(), *POSITIVES.values(), **options), heads
    )


def test_options_equal_their_formula() -> None:
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0])
    loss = masked_bce(
        FEATURES[2:],
        WEIGHT,
        BIAS,
        **{**MASKS, "mask_rows": torch.tensor([0])},
        positive_indptr=torch.tensor([0, 1]),
        positive_indices=torch.tensor([1]),
        temperature=2.0,
        label_smoothing=0.2,
        positive_weight=weights,
    )
    expected = (
        3 * 0.9 * softplus(-0.75)
        + 0.1 * softplus(0.75)
        + 2 * 0.1 * softplus(1.5)
        + 0.9 * softplus(-1.5)
    )
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_nothing_to_learn_from_is_zero_with_zero_gradients() -> None:
    for rows, positive_indptr in ((0, [0]), (3, [0, 0, 0, 0])):
        features, weight, bias = (
            t.clone().requires_grad_() for t in (FEATURES[:rows], WEIGHT, BIAS)
        )
        loss = masked_bce(
            features,
            weight,
            bias,
            **{**MASKS, "mask_rows": torch.full((rows,), -1)},
            positive_indptr=torch.tensor(positive_indptr),
            positive_indices=torch.empty(0, dtype=torch.int64),
        )
        loss.backward()
        assert loss.item() == 0
        assert weight.grad is not None
        assert not weight.grad.any()


def test_extreme_logits_stay_finite() -> None:
    features = torch.tensor([[1e4, -1e4]] * 3, requires_grad=True)
    loss = masked_bce(features, WEIGHT, BIAS, **MASKS, **POSITIVES)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_only_the_asked_gradients_are_computed() -> None:
    bias = BIAS.clone().requires_grad_()
    masked_bce(FEATURES, WEIGHT, bias, **MASKS, **POSITIVES).backward()
    assert bias.grad is not None
    assert WEIGHT.grad is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reduction": "max"}, "'max'"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"temperature": -1.0}, "temperature"),
        ({"positive_weight": torch.ones(3)}, "positive_weight"),
        ({"positive_indptr": torch.tensor([0, 1])}, "positive_indptr must have 4"),
        ({"positive_indices": torch.tensor([0], dtype=torch.int32)}, "positive_indices"),
        ({"mask_rows": torch.tensor([0])}, "mask_rows must have 3"),
        ({"mask_indptr": torch.empty(0, dtype=torch.int64)}, "C \\+ 1"),
    ],
)
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {**MASKS, **POSITIVES, **changed}
    with pytest.raises(ValueError, match=message):
        masked_bce(FEATURES, WEIGHT, BIAS, **arguments)
