"""``masked_scores`` and its cut forms against dense float64, whatever the implementation."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from kernels import MaskedLinear, masked_scores, masked_scores_above, masked_top_k
from tests.kernels.conftest import IMPLS
from tests.kernels.problems import DTYPES, SHAPES, make_problem

# What an op may be worse than eager torch in the same dtype, both against float64.
TOLERANCE = 2e-6

shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
pairs = pytest.mark.parametrize("dtypes", DTYPES, ids=str)


@shapes
@pairs
@pytest.mark.usefixtures("poisoned")
def test_no_less_exact_than_eager(
    impl: str,
    device: str,
    shape: tuple[int, int, int, int],
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    problem = make_problem(shape, dtypes, device=device)
    indptr, scores = masked_scores(*problem.heads, temperature=1.3)
    exact = torch.sigmoid(problem.logits(torch.float64) / 1.3)[problem.relevant]
    eager_dtype = torch.promote_types(*dtypes)
    eager = torch.sigmoid(problem.logits(eager_dtype) / 1.3)[problem.relevant]
    assert scores.dtype == torch.float32
    assert indptr.tolist() == [0, *problem.relevant.sum(1).cumsum(0).tolist()]
    allowed = (eager.double() - exact).abs().max() if len(exact) else torch.tensor(0.0)
    error = (scores.double() - exact).abs()
    assert bool((error <= allowed + TOLERANCE).all())


@shapes
@pytest.mark.parametrize("per_label", [False, True])
@pytest.mark.usefixtures("poisoned")
def test_above_is_the_scores_that_are(
    impl: str, device: str, shape: tuple[int, int, int, int], per_label: bool
) -> None:
    problem = make_problem(shape, device=device)
    indptr, scores = masked_scores(*problem.heads)
    generator = torch.Generator().manual_seed(3)
    threshold = torch.rand(shape[2], generator=generator).to(device) if per_label else 0.6
    kept_indptr, labels, kept = masked_scores_above(*problem.heads, threshold=threshold)
    every_label = problem.relevant.nonzero()[:, 1]
    limit = threshold[every_label] if isinstance(threshold, torch.Tensor) else threshold
    above = scores >= limit
    assert labels.tolist() == every_label[above].tolist()
    assert kept.tolist() == scores[above].tolist()
    expected = [int(above[start:end].sum()) for start, end in pairwise(indptr)]
    assert kept_indptr.diff().tolist() == expected


@shapes
@pytest.mark.parametrize("k", [1, 3, 130])
@pytest.mark.usefixtures("poisoned")
def test_top_k_is_the_best_scores(
    impl: str, device: str, shape: tuple[int, int, int, int], k: int
) -> None:
    problem = make_problem(shape, device=device)
    if k > 128 and impl == "triton":
        masked_scores(*problem.heads)
        with pytest.raises(NotImplementedError, match="at most 128, got k = 130"):
            masked_top_k(*problem.heads, k=k)
        return
    indptr, scores = masked_scores(*problem.heads)
    labels, best = masked_top_k(*problem.heads, k=k)
    assert labels.shape == best.shape == (shape[0], k)
    every_label = problem.relevant.nonzero()[:, 1].tolist()
    for product in range(shape[0]):
        start, end = int(indptr[product]), int(indptr[product + 1])
        pairs = sorted(zip((-scores[start:end]).tolist(), every_label[start:end], strict=True))[:k]
        padding = k - len(pairs)
        assert labels[product].tolist() == [label for _, label in pairs] + [-1] * padding
        assert best[product].tolist() == [-score for score, _ in pairs] + [0.0] * padding


def test_equal_scores_come_in_the_order_of_their_labels(impl: str, device: str) -> None:
    indptr = torch.tensor([0, 300], device=device)
    labels, _ = masked_top_k(
        torch.ones(2, 4, device=device),
        torch.ones(300, 4, device=device),
        torch.zeros(300, device=device),
        indptr,
        torch.arange(300, device=device),
        torch.zeros(2, dtype=torch.int64, device=device),
        k=5,
    )
    assert labels.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    "shape", [(0, 3, 4, 2), (3, 3, 0, 1), (3, 0, 4, 2)], ids=["B=0", "L=0", "D=0"]
)
def test_nothing_of_something(impl: str, device: str, shape: tuple[int, int, int, int]) -> None:
    problem = make_problem(shape, device=device)
    indptr, scores = masked_scores(*problem.heads)
    assert indptr.tolist() == [0, *problem.relevant.sum(1).cumsum(0).tolist()]
    exact = torch.sigmoid(problem.logits(torch.float64))[problem.relevant]
    torch.testing.assert_close(scores, exact.float())
    assert len(masked_scores_above(*problem.heads, threshold=0.0)[1]) == len(exact)
    labels, best = masked_top_k(*problem.heads, k=2)
    assert (labels >= 0).sum() == problem.relevant.sum(1).clamp(max=2).sum()
    assert bool((best[labels < 0] == 0).all())


def test_no_mask_table_at_all(impl: str, device: str) -> None:
    problem = make_problem((3, 2, 4, 1), device=device)
    heads = (*problem.heads[:3], problem.mask_indptr[:1], problem.mask_indices[:0])
    rows = torch.full((3,), -1, device=device)
    indptr, scores = masked_scores(*heads, rows)
    assert indptr.tolist() == [0, 0, 0, 0]
    assert len(scores) == 0


def test_a_row_that_the_table_does_not_have(impl: str, device: str) -> None:
    problem = make_problem((3, 2, 4, 1), device=device)
    rows = torch.tensor([0, 1, 0], device=device)
    if impl == "torch":
        masked_scores(*problem.heads)
        with pytest.raises(IndexError, match="row 1 of a mask table of 1 rows"):
            masked_scores(*problem.heads[:5], rows)
        return
    indptr, _ = masked_scores(*problem.heads[:5], rows)
    width = int(problem.mask_indptr[1])
    assert indptr.tolist() == [0, width, width, 2 * width]


def test_a_bound_on_the_entries_pads_with_zeros(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[-1], device=device)
    indptr, scores = masked_scores(*problem.heads)
    num_entries = len(scores)
    known = {"num_entries": num_entries + 3, "num_categories": 7}
    same_indptr, padded = masked_scores(*problem.heads, **known)
    assert same_indptr.tolist() == indptr.tolist()
    torch.testing.assert_close(padded[:num_entries], scores)
    assert padded[num_entries:].tolist() == [0.0] * 3
    _, labels, kept = masked_scores_above(*problem.heads, threshold=0.5)
    kept_indptr, all_labels, all_kept = masked_scores_above(
        *problem.heads, threshold=0.5, padded=True, **known
    )
    assert int(kept_indptr[-1]) == len(labels)
    assert all_labels.tolist() == labels.tolist() + [-1] * (num_entries + 3 - len(labels))
    torch.testing.assert_close(all_kept[: len(kept)], kept)
    assert not all_kept[len(kept) :].any()


# The dense variant has a program for each tile of L: too many for the interpreter.
@pytest.mark.parametrize("impl", [name for name in IMPLS if "dense" not in name], indirect=True)
def test_more_pairs_than_32_bits_count(impl: str, device: str) -> None:
    num_labels = 2**29
    weight = torch.ones(1, 1, dtype=torch.float16, device=device).expand(num_labels, 1)
    bias = torch.zeros(1, dtype=torch.float16, device=device).expand(num_labels)
    indices = torch.tensor([0, num_labels - 1], device=device)
    features = torch.arange(5.0, device=device)[:, None].half()
    rows = torch.zeros(5, dtype=torch.int64, device=device)
    indptr, scores = masked_scores(
        features, weight, bias, torch.tensor([0, 2], device=device), indices, rows
    )
    assert indptr.tolist() == [0, 2, 4, 6, 8, 10]
    expected = torch.sigmoid(features.float()).expand(5, 2).flatten()
    torch.testing.assert_close(scores, expected)


def test_results_do_not_depend_on_the_run(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[-1], device=device)
    first, again = masked_scores(*problem.heads)[1], masked_scores(*problem.heads)[1]
    assert first.tolist() == again.tolist()


def test_the_module_is_the_functions(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[1], device=device)
    module = MaskedLinear(7, 13).to(device)
    masks = problem.heads[3:]
    heads = (problem.features, module.weight, module.bias, *masks)
    assert torch.sigmoid(module.bias[0]).item() == pytest.approx(0.047, abs=1e-3)
    assert module(problem.features, *masks)[1].tolist() == masked_scores(*heads)[1].tolist()
    above = module.above(problem.features, *masks, threshold=0.05)[1]
    assert above.tolist() == masked_scores_above(*heads, threshold=0.05)[1].tolist()
    best = module.top_k(problem.features, *masks, k=2)[0]
    assert best.tolist() == masked_top_k(*heads, k=2)[0].tolist()


def test_scores_are_cut_off_from_autograd(impl: str, device: str) -> None:
    problem = make_problem(SHAPES[1], device=device)
    features = problem.features.requires_grad_()
    assert not masked_scores(features, *problem.heads[1:])[1].requires_grad
