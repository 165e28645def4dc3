"""The ops inside torch: registration, ``torch.compile``, autograd checked by differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import masked_bce, masked_scores, masked_scores_above, masked_top_k, use_impl
from tests.kernels.problems import SHAPES, make_problem


@pytest.fixture(autouse=True)
def _choice() -> None:
    use_impl("auto")


def arguments(op: str, num_entries: int | None) -> tuple[Any, ...]:
    problem = make_problem(SHAPES[1])
    known = (num_entries, None)
    if op == "masked_scores":
        return (*problem.heads, *known, 1.5)
    if op == "masked_scores_above":
        return (*problem.heads, *known, 1.0, 0.5, None, num_entries is not None)
    if op == "masked_top_k":
        return (*problem.heads, *known, 1.0, 3)
    heads = tuple(each.requires_grad_() for each in problem.heads[:3])
    options = (None, None, None, None, 0.0, 0.5, 1.0, False)
    return (*heads, *problem.heads[3:], *known, 1.0, *problem.positives, *options)


# Torch's tracing looks at the gradients of its own intermediate values.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("num_entries", [None, 40])
@pytest.mark.parametrize(
    "op", ["masked_scores", "masked_scores_above", "masked_top_k", "masked_bce"]
)
def test_torch_s_own_checks_of_an_op(op: str, num_entries: int | None) -> None:
    """Schema, fake kernel, autograd and, where no size depends on data, tracing ahead of time."""
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if num_entries is not None:
        checks.append("test_aot_dispatch_static")
    overload = getattr(torch.ops.sortiment, op).default
    torch.library.opcheck(overload, arguments(op, num_entries), test_utils=checks)


@pytest.mark.parametrize("num_entries", [None, 40])
def test_scores_under_compile(num_entries: int | None) -> None:
    problem = make_problem(SHAPES[1])

    def halved(*heads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        known = {"num_entries": num_entries}
        _, scores = masked_scores(*heads, **known)
        _, _, above = masked_scores_above(*heads, threshold=0.5, **known)
        _, best = masked_top_k(*heads, k=2, **known)
        return scores / 2, above / 2, best / 2

    compiled = torch.compile(halved, fullgraph=True, backend="aot_eager")
    for own, expected in zip(compiled(*problem.heads), halved(*problem.heads), strict=True):
        torch.testing.assert_close(own, expected)


def test_loss_and_backward_under_compile() -> None:
    problem = make_problem(SHAPES[1])

    def gradient(step: Any) -> torch.Tensor:
        weight = problem.weight.clone().requires_grad_()
        step(weight).backward()
        assert weight.grad is not None
        return weight.grad

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return masked_bce(
            problem.features, weight, *problem.heads[2:], *problem.positives, num_entries=40
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient(compiled), gradient(loss))


@pytest.mark.parametrize("sampled", [False, True])
def test_gradients_by_differences(sampled: bool) -> None:
    problem = make_problem((4, 3, 6, 3))
    heads = tuple(each.double().requires_grad_() for each in problem.heads[:3])
    options: dict[str, Any] = {"temperature": 1.2, "label_smoothing": 0.1, "bootstrap": 0.8}
    if sampled:
        listed = torch.arange(6).repeat(4), torch.arange(0, 25, 6)
        options |= {"negative_indices": listed[0], "negative_indptr": listed[1]}
        options["negative_weight"] = torch.linspace(0.5, 2, 4, dtype=torch.float64)

    def loss(*heads: torch.Tensor) -> torch.Tensor:
        return masked_bce(*heads, *problem.heads[3:], *problem.positives, **options)

    assert torch.autograd.gradcheck(loss, heads)
