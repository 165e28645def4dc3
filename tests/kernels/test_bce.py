"""``masked_bce`` and its gradients against dense float64, whatever the implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kernels import masked_bce
from tests.kernels.conftest import LOSS_IMPLS
from tests.kernels.problems import DTYPES, SHAPES, Problem, csr, make_problem

pytestmark = pytest.mark.parametrize("impl", LOSS_IMPLS, indirect=True)

# What an op may be worse than eager torch in the same dtype, both against float64: absolute, for
# values of the order of one; sums of the gradients' terms are longer than those of the scores.
TOLERANCE = 1e-5

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 1.5},
    "smoothing": {"label_smoothing": 0.2, "smoothing_prior": 0.1},
    "bootstrap": {"bootstrap": 0.8},
    "positive weight": {"positive_weight": True},
    "negatives": {"negatives": True},
    "all": {
        "temperature": 0.7,
        "label_smoothing": 0.1,
        "bootstrap": 0.9,
        "positive_weight": True,
        "negatives": True,
    },
}


def dense_loss(
    problem: Problem, heads: tuple[Tensor, Tensor, Tensor], options: dict[str, Any]
) -> Tensor:
    """The docstring's formula, label by label, [B]."""
    x, w, b = heads
    z = (x @ w.t() + b) / options.get("temperature", 1.0)
    y = problem.positive.to(z.dtype)
    smoothing, prior = options.get("label_smoothing", 0.0), options.get("smoothing_prior", 0.5)
    target = (1 - smoothing) * y + smoothing * prior
    positive_weight = options.get("positive_weight", torch.ones(()).to(z))
    factor = torch.ones_like(z)
    if "negative" in options:
        sampled = options["negative"] & ~problem.positive
        weight = options["negative_weight"].to(z)[:, None]
        factor = y + sampled * weight
    beta = options.get("bootstrap", 1.0)
    loss = -factor * (
        positive_weight.to(z) * target * logsigmoid(z) + (1 - target) * logsigmoid(-z)
    )
    loss = beta * loss - (1 - beta) * torch.sigmoid(z) * logsigmoid(z)
    return torch.where(problem.relevant, loss, 0).sum(1)


def given(problem: Problem, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of the op, and of ``dense_loss``."""
    generator = torch.Generator().manual_seed(9)
    keywords = dict(options)
    dense = dict(options)
    device = problem.features.device
    if keywords.pop("positive_weight", False):
        weight = torch.rand(len(problem.weight), generator=generator).to(device) + 0.5
        keywords["positive_weight"] = dense["positive_weight"] = weight
    if keywords.pop("negatives", False):
        sampled = (torch.rand(problem.positive.shape, generator=generator) < 0.5).to(device)
        weight = torch.rand(len(problem.features), generator=generator).to(device) + 0.5
        keywords["negative_indptr"], keywords["negative_indices"] = csr(sampled)
        keywords["negative_weight"] = dense["negative_weight"] = weight
        dense["negative"] = sampled
    return keywords, dense


def gradients(
    problem: Problem, options: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Losses and gradients of the dense formula in ``dtype``, weighted as in the tests."""
    heads = tuple(
        each.detach().to(dtype).requires_grad_()
        for each in (problem.features, problem.weight, problem.bias)
    )
    losses = dense_loss(problem, heads, options)
    weights = torch.linspace(0.5, 2, len(losses), device=losses.device, dtype=dtype)
    return losses.detach(), torch.autograd.grad((losses * weights).sum(), heads)


def own_gradients(
    problem: Problem, keywords: dict[str, Any], **more: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The same from the op."""
    heads = tuple(
        each.detach().clone().requires_grad_()
        for each in (problem.features, problem.weight, problem.bias)
    )
    losses = masked_bce(
        *heads, *problem.heads[3:], *problem.positives, reduction="none", **keywords, **more
    )
    weights = torch.linspace(0.5, 2, len(losses), device=losses.device)
    return losses.detach(), torch.autograd.grad((losses * weights).sum(), heads)


def check(problem: Problem, dtype: torch.dtype, options: dict[str, Any], **more: Any) -> None:
    keywords, dense = given(problem, options)
    losses, grads = own_gradients(problem, keywords, **more)
    exact_losses, exact_grads = gradients(problem, dense, torch.float64)
    eager_losses, eager_grads = gradients(problem, dense, dtype)
    for own, eager, exact, name in zip(
        (losses, *grads),
        (eager_losses, *eager_grads),
        (exact_losses, *exact_grads),
        ("loss", "features", "weight", "bias"),
        strict=True,
    ):
        own = own.to_dense() if own.is_sparse else own
        # The result is rounded to its own dtype: half a unit of its last digit.
        rounding = exact.abs() * torch.finfo(own.dtype).eps
        allowed = (eager.double() - exact).abs().max() if exact.numel() else torch.tensor(0.0)
        worst = ((own.double() - exact).abs() - rounding).max() if exact.numel() else allowed
        assert worst <= allowed + TOLERANCE, name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.usefixtures("poisoned")
def test_loss_and_gradients_are_no_less_exact_than_eager(
    impl: str,
    device: str,
    shape: tuple[int, int, int, int],
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    problem = make_problem(shape, dtypes, device=device)
    check(problem, torch.promote_types(*dtypes), {})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.usefixtures("poisoned")
def test_every_option(impl: str, device: str, options: dict[str, Any], share: float) -> None:
    problem = make_problem((9, 8, 21, 3), device=device, share=share)
    check(problem, torch.float32, options)


@pytest.mark.usefixtures("poisoned")
def test_many_products_of_one_category_share_its_rows(impl: str, device: str) -> None:
    check(make_problem((33, 20, 40, 1), device=device), torch.float32, {})


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4], (4, 3, 5, 2)], ids=str)
@pytest.mark.usefixtures("poisoned")
def test_sparse_gradients_are_the_touched_rows(
    impl: str, device: str, shape: tuple[int, int, int, int]
) -> None:
    problem = make_problem(shape, device=device)
    check(problem, torch.float32, {}, sparse_grad=True)
    _, (_, weight, bias) = own_gradients(problem, {}, sparse_grad=True)
    touched = problem.relevant.any(0).nonzero()[:, 0].tolist()
    assert weight.is_sparse
    assert weight.coalesce().indices().tolist() == [touched]
    assert bias.coalesce().indices().tolist() == [touched]
    assert bool(weight.coalesce().values().isfinite().all())


def test_bounds_known_to_the_host_change_nothing(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[4], device=device)
    num_entries = int(problem.relevant.sum()) + 4
    for sparse in (False, True):
        check(
            problem,
            torch.float32,
            {},
            num_entries=num_entries,
            num_categories=7,
            sparse_grad=sparse,
        )


@pytest.mark.parametrize("shape", [(0, 3, 4, 2), (3, 3, 0, 1)], ids=["B=0", "L=0"])
def test_nothing_has_no_loss(impl: str, device: str, shape: tuple[int, int, int, int]) -> None:
    problem = make_problem(shape, device=device)
    losses, grads = own_gradients(problem, {})
    assert losses.tolist() == [0.0] * shape[0]
    assert all(not grad.any() for grad in grads)
    assert masked_bce(*problem.heads, *problem.positives).item() == 0


def test_reductions(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[1], device=device)
    losses = masked_bce(*problem.heads, *problem.positives, reduction="none")
    total = masked_bce(*problem.heads, *problem.positives, reduction="sum")
    mean = masked_bce(*problem.heads, *problem.positives)
    torch.testing.assert_close(total, losses.sum())
    torch.testing.assert_close(mean, losses.mean())


def test_extreme_logits_keep_loss_and_gradient_finite(impl: str, device: str) -> None:
    features = torch.tensor([[1e4], [-1e4]], device=device, requires_grad=True)
    weight = torch.ones(2, 1, device=device, requires_grad=True)
    indptr = torch.tensor([0, 2], device=device)
    rows = torch.zeros(2, dtype=torch.int64, device=device)
    loss = masked_bce(
        features,
        weight,
        torch.zeros(2, device=device),
        indptr,
        torch.arange(2, device=device),
        rows,
        torch.tensor([0, 1, 2], device=device),
        torch.tensor([0, 0], device=device),
        bootstrap=0.9,
        reduction="none",
    )
    torch.testing.assert_close(loss, torch.tensor([9e3, 9e3], device=device))
    loss.sum().backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_two_runs_give_the_same_bits(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[4], device=device)
    for sparse in (False, True):
        first = own_gradients(problem, {}, sparse_grad=sparse)
        again = own_gradients(problem, {}, sparse_grad=sparse)
        for one, other in zip((first[0], *first[1]), (again[0], *again[1]), strict=True):
            assert one.to_dense().tolist() == other.to_dense().tolist()


# Torch's Adagrad makes sparse tensors without saying whether they are to be checked.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize("optimizer", ["Adagrad", "SparseAdam"])
def test_a_library_s_sparse_optimizer_steps_touched_rows_only(
    impl: str, device: str, optimizer: str
) -> None:
    problem = make_problem(SHAPES[1], device=device)
    weight = torch.nn.Parameter(problem.weight.clone())
    bias = torch.nn.Parameter(problem.bias.clone())
    step = getattr(torch.optim, optimizer)([weight, bias], lr=0.1)
    loss = masked_bce(
        problem.features, weight, bias, *problem.heads[3:], *problem.positives, sparse_grad=True
    )
    loss.backward()
    step.step()
    touched = problem.relevant.any(0)
    assert bool((weight.detach() != problem.weight).any(1)[touched].all())
    assert torch.equal(weight.detach()[~touched], problem.weight[~touched])


@pytest.mark.usefixtures("impl")
def test_gradients_of_a_scaled_loss_in_float16_are_finite(device: str) -> None:
    """As ``GradScaler`` scales it at first; five products share a mask row, so they are grouped."""
    problem = make_problem((5, 16, 40, 1), (torch.float16, torch.float16), share=1.0, device=device)
    # Small weights: the gradients are within float16, the slopes of the scaled loss are not.
    fixed = (problem.weight * 0.02, problem.bias)
    features = problem.features.detach().clone().requires_grad_()
    losses = masked_bce(
        features,
        *fixed,
        *problem.heads[3:],
        *problem.positives,
        positive_weight=torch.full((40,), 5.0, device=device),
        reduction="none",
    )
    (found,) = torch.autograd.grad(losses.sum() * 2.0**16, [features])
    doubles = (features.detach().double().requires_grad_(), *(each.double() for each in fixed))
    dense = dense_loss(problem, doubles, {"positive_weight": torch.tensor(5.0, device=device)})
    (wanted,) = torch.autograd.grad(dense.sum() * 2.0**16, doubles[:1])
    assert wanted.abs().max() > 1_000
    torch.testing.assert_close(found.double(), wanted, rtol=5e-3, atol=20)


@pytest.mark.usefixtures("impl")
def test_a_bias_alone_has_a_gradient(device: str) -> None:
    problem = make_problem((5, 1, 13, 3), device=device)
    bare = [each[:, :0] for each in (problem.features, problem.weight)]
    bias = problem.bias.detach().clone().requires_grad_()
    losses = masked_bce(*bare, bias, *problem.heads[3:], *problem.positives, reduction="none")
    (found,) = torch.autograd.grad(losses.sum(), [bias])
    heads = (*(each.double() for each in bare), problem.bias.double().requires_grad_())
    (wanted,) = torch.autograd.grad(dense_loss(problem, heads, {}).sum(), heads[2:])
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found.double(), wanted)
