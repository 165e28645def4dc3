import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import check_masks, masked_bce, masked_scores, masked_scores_above, masked_top_k


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, ...]:
    """Features, weight, bias, the mask as [C, L] bool, mask rows."""
    num_labels, num_masks = draw(st.integers(0, 7)), draw(st.integers(1, 4))
    num_products = draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1_000)))
    mask = torch.rand(num_masks, num_labels, generator=generator) < draw(st.floats(0, 1))
    rows = torch.randint(-1, num_masks, (num_products,), generator=generator)
    features = torch.randn(num_products, 3, generator=generator)
    weight = torch.randn(num_labels, 3, generator=generator)
    return features, weight, torch.randn(num_labels, generator=generator), mask, rows


def table(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return indptr, mask.nonzero()[:, 1]


@settings(deadline=None)  # the first call starts torch's threads
@given(problems(), st.floats(0, 1), st.integers(1, 8))
def test_all_forms_equal_the_dense_product(
    problem: tuple[torch.Tensor, ...], threshold: float, k: int
) -> None:
    features, weight, bias, mask, rows = problem
    heads = (features, weight, bias, *table(mask), rows)
    check_masks(heads[3], heads[4], len(weight))
    dense = torch.sigmoid(features @ weight.T + bias)
    relevant = mask[rows.clamp(min=0)] & (rows >= 0)[:, None]

    indptr, scores = masked_scores(*heads)
    assert indptr.tolist() == table(relevant)[0].tolist()
    torch.testing.assert_close(scores, dense[relevant])

    pairs = [
        (product, label, score)
        for (product, label), score in zip(
            relevant.nonzero().tolist(), scores.tolist(), strict=True
        )
    ]
    above = torch.tensor(threshold).item()
    indptr, labels, kept = masked_scores_above(*heads, threshold=threshold)
    products = torch.repeat_interleave(torch.arange(len(rows)), indptr.diff())
    assert list(zip(products.tolist(), labels.tolist(), kept.tolist(), strict=True)) == [
        pair for pair in pairs if pair[2] >= above
    ]

    top_labels, top_scores = masked_top_k(*heads, k=k)
    for product in range(len(rows)):
        own = sorted((-score, label) for owner, label, score in pairs if owner == product)[:k]
        padding = k - len(own)
        assert top_labels[product].tolist() == [label for _, label in own] + [-1] * padding
        assert top_scores[product].tolist() == [-score for score, _ in own] + [0.0] * padding


@settings(deadline=None)  # the first call starts torch's threads
@given(problems(), st.integers(0, 1_000))
def test_loss_equals_the_dense_one(problem: tuple[torch.Tensor, ...], seed: int) -> None:
    features, weight, bias, mask, rows = problem
    relevant = mask[rows.clamp(min=0)] & (rows >= 0)[:, None]
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(relevant.shape, generator=generator) < 0.3
    losses = masked_bce(
        features, weight, bias, *table(mask), rows, *table(targets), reduction="none"
    )
    dense = torch.nn.functional.binary_cross_entropy_with_logits(
        features @ weight.T + bias, targets.float(), reduction="none"
    )
    torch.testing.assert_close(losses, (dense * relevant).sum(1))
