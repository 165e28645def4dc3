"""What only a GPU can show: collected where there is one, else the run's header says so."""

from __future__ import annotations

import pytest
import torch

from kernels import masked_bce, masked_scores, masked_scores_above, masked_top_k, use_impl
from tests.kernels.problems import make_problem

SHAPE = (64, 96, 500, 9)


@pytest.fixture(autouse=True)
def _choice() -> None:
    use_impl("triton")


def test_the_ops_can_be_captured_in_a_graph() -> None:
    problem, later = (make_problem(SHAPE, seed=seed, device="cuda") for seed in (0, 1))
    static = [each.clone() for each in problem.heads]
    room = 64 * 500

    def step() -> tuple[torch.Tensor, ...]:
        indptr, scores = masked_scores(*static, num_entries=room)
        above = masked_scores_above(*static, threshold=0.5, num_entries=room, padded=True)
        return indptr, scores, *above, *masked_top_k(*static, k=3, num_entries=room)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()  # compiled before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for into, value in zip(static[:3], later.heads[:3], strict=True):
        into.copy_(value)
    static[5].copy_(later.mask_rows)
    graph.replay()
    for own, expected in zip(captured, step(), strict=True):
        assert own.tolist() == expected.tolist()


def test_memory_grows_with_the_entries_and_not_with_the_labels() -> None:
    num_labels, num_products = 1_000_000, 256
    weight = torch.zeros(num_labels, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    bias = torch.zeros(num_labels, device="cuda", requires_grad=True)
    features = torch.randn(num_products, 64, dtype=torch.bfloat16, device="cuda")
    starts = torch.arange(num_products, device="cuda") * 1_000
    indices = (starts[:, None] + torch.arange(100, device="cuda")).flatten()
    indptr = torch.arange(num_products + 1, device="cuda") * 100
    rows = torch.arange(num_products, device="cuda")
    positives = indptr.clamp(max=0), indices[:0]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    masked_scores(features, weight, bias, indptr, indices, rows)
    masked_bce(
        features, weight, bias, indptr, indices, rows, *positives, sparse_grad=True
    ).backward()
    extra = torch.cuda.max_memory_allocated() - before
    entries = num_products * 100
    # Touched rows and a few numbers an entry; one B x L tensor of bits would be 32 MB.
    assert extra < entries * (64 * 2 * 2 + 100)


def test_inductor_compiles_around_the_ops() -> None:
    problem = make_problem(SHAPE, device="cuda")

    def halved(*heads: torch.Tensor) -> torch.Tensor:
        return masked_scores(*heads, num_entries=64 * 500)[1] / 2

    torch.testing.assert_close(
        torch.compile(halved, fullgraph=True)(*problem.heads), halved(*problem.heads)
    )
