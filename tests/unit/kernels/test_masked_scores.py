from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from kernels import check_masks, masked_scores, masked_scores_above, masked_top_k
from kernels._dispatch import _choose
from kernels._logits_torch import force_way

# Two features, four labels. Mask rows: {1, 3}, {}, {0, 1, 2}.
WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
BIAS = torch.tensor([0.0, 0.5, -1.0, 0.0])
INDPTR = torch.tensor([0, 2, 2, 5])
INDICES = torch.tensor([1, 3, 0, 1, 2])
FEATURES = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-1.0, 1.0], [3.0, 0.5]])
ROWS = torch.tensor([2, 1, 0, 2])
# Logits by hand: product 0: 1, 2.5, 2; product 2: 1.5, -3; product 3: 3, 1, 2.5.
LOGITS = torch.tensor([1.0, 2.5, 2.0, 1.5, -3.0, 3.0, 1.0, 2.5])


def heads(**changed: Any) -> dict[str, Tensor]:
    return {
        "features": FEATURES,
        "weight": WEIGHT,
        "bias": BIAS,
        "mask_indptr": INDPTR,
        "mask_indices": INDICES,
        "mask_rows": ROWS,
        **changed,
    }


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_by_hand(temperature: float) -> None:
    indptr, scores = masked_scores(**heads(), temperature=temperature)
    assert indptr.tolist() == [0, 3, 3, 5, 8]
    torch.testing.assert_close(scores, torch.sigmoid(LOGITS / temperature))


def test_one_threshold_by_hand() -> None:
    indptr, labels, scores = masked_scores_above(**heads(), threshold=0.85)
    assert indptr.tolist() == [0, 2, 2, 2, 4]
    assert labels.tolist() == [1, 2, 0, 2]
    torch.testing.assert_close(scores, torch.sigmoid(torch.tensor([2.5, 2.0, 3.0, 2.5])))


def test_a_threshold_a_label_counts_at_or_above() -> None:
    threshold = torch.sigmoid(torch.tensor([1.0, 2.6, 3.0, -3.0]))
    indptr, labels, _ = masked_scores_above(**heads(), threshold=threshold)
    assert indptr.tolist() == [0, 1, 1, 2, 3]
    assert labels.tolist() == [0, 3, 0]


def test_top_k_by_hand() -> None:
    labels, scores = masked_top_k(**heads(), k=2)
    assert labels.tolist() == [[1, 2], [-1, -1], [1, 3], [0, 2]]
    expected = torch.sigmoid(torch.tensor([[2.5, 2.0], [0, 0], [1.5, -3.0], [3.0, 2.5]]))
    expected[1] = 0
    torch.testing.assert_close(scores, expected)


def test_top_k_breaks_ties_by_the_lowest_label() -> None:
    labels, _ = masked_top_k(**heads(features=torch.zeros(4, 2), bias=torch.zeros(4)), k=5)
    assert labels.tolist() == [[0, 1, 2, -1, -1], [-1] * 5, [1, 3, -1, -1, -1], [0, 1, 2, -1, -1]]


def test_a_negative_row_has_no_labels() -> None:
    indptr, scores = masked_scores(**heads(mask_rows=torch.tensor([-1, 0, -7, 2])))
    assert indptr.tolist() == [0, 0, 2, 2, 5]
    assert len(scores) == 5


def test_empty_batch() -> None:
    empty = heads(features=FEATURES[:0], mask_rows=ROWS[:0])
    indptr, scores = masked_scores(**empty)
    assert indptr.tolist() == [0]
    assert scores.shape == (0,)
    assert masked_scores_above(**empty, threshold=0.5)[0].tolist() == [0]
    assert masked_top_k(**empty, k=3)[0].shape == (0, 3)


def test_no_labels_at_all() -> None:
    none = heads(
        weight=WEIGHT[:0],
        bias=BIAS[:0],
        mask_indptr=torch.tensor([0, 0, 0, 0]),
        mask_indices=INDICES[:0],
    )
    assert masked_scores(**none)[0].tolist() == [0] * 5
    assert masked_scores_above(**none, threshold=torch.empty(0))[1].tolist() == []
    assert masked_top_k(**none, k=1)[0].tolist() == [[-1]] * 4


def test_a_table_without_rows() -> None:
    table = {"mask_indptr": torch.tensor([0]), "mask_indices": INDICES[:0]}
    rows = torch.full((4,), -1)
    assert masked_scores(**heads(**table, mask_rows=rows))[0].tolist() == [0] * 5
    with pytest.raises(IndexError):
        masked_scores(**heads(**table))


def test_a_row_beyond_the_table_is_an_error() -> None:
    with pytest.raises(IndexError):
        masked_scores(**heads(mask_rows=torch.tensor([0, 1, 2, 3])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(13, 257, generator=generator).to(dtype)
    weight = torch.randn(31, 257, generator=generator).to(dtype)
    bias = torch.randn(31, generator=generator).to(dtype)
    rows = torch.randint(-1, 2, (13,), generator=generator)
    mask_indptr, mask_indices = torch.tensor([0, 31, 40]), torch.arange(40) % 31
    indptr, scores = masked_scores(features, weight, bias, mask_indptr, mask_indices, rows)
    exact = torch.sigmoid(features.double() @ weight.double().T + bias.double())
    wanted = [
        exact[product, mask_indices[mask_indptr[row] : mask_indptr[row + 1]]]
        for product, row in enumerate(rows.tolist())
        if row >= 0
    ]
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), torch.cat(wanted), atol=2e-5, rtol=0)
    assert indptr[-1] == len(scores)


@pytest.mark.parametrize("double", ["features", "weight", "bias"])
def test_float64_anywhere_makes_all_float64(double: str) -> None:
    given = heads()
    scores = masked_scores(**{**given, double: given[double].double()})[1]
    assert scores.dtype == torch.float64
    with pytest.raises(NotImplementedError, match="float64"):
        _choose(
            "masked_scores",
            "cuda",
            tuple(
                torch.float64 if each == double else torch.float32
                for each in ("features", "weight", "bias")
            ),
            "triton",
        )


@pytest.mark.parametrize("way", ["grouped", "sampled"])
def test_autocast_changes_nothing(way: Literal["grouped", "sampled"]) -> None:
    torch.manual_seed(0)
    given = heads(features=torch.randn(4, 64), weight=torch.randn(4, 64))
    force_way(way)
    try:
        wanted = masked_scores(**given)[1]
        with torch.autocast("cpu", torch.bfloat16):
            found = masked_scores(**given)[1]
    finally:
        force_way(None)
    assert torch.equal(found, wanted)


def test_float64_stays_float64() -> None:
    doubles = heads(features=FEATURES.double(), weight=WEIGHT.double(), bias=BIAS.double())
    assert masked_scores(**doubles)[1].dtype == torch.float64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": FEATURES[0]}, "features must be"),
        ({"features": FEATURES[:, :1]}, "D = 1"),
        ({"features": FEATURES.long()}, "features must be float32"),
        ({"bias": BIAS[:2]}, "bias has 2"),
        ({"bias": BIAS.to("meta")}, "bias is on meta"),
        ({"mask_indptr": INDPTR.int()}, "mask_indptr must be a vector of int64"),
        ({"mask_indptr": INDPTR[:0]}, "C \\+ 1"),
        ({"mask_indices": INDICES.float()}, "mask_indices must be"),
        ({"mask_rows": ROWS[:3]}, "mask_rows must have 4 elements, got 3"),
        ({"mask_rows": ROWS.to("meta")}, "mask_rows is on meta"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = heads(**changed)
    with pytest.raises(ValueError, match=message):
        masked_scores(**arguments)


def test_wrong_threshold_and_k() -> None:
    with pytest.raises(ValueError, match="threshold must be floating \\[4\\]"):
        masked_scores_above(**heads(), threshold=torch.zeros(3))
    with pytest.raises(ValueError, match="k must be at least 1"):
        masked_top_k(**heads(), k=0)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 2, 2, 5], [1, 3, 0, 1, 2], None),
        ([0], [], None),
        ([0, 0], [], None),
        ([0, 0, 1, 1], [3], None),
        ([1, 2], [0, 1], "start with 0"),
        ([], [], "start with 0"),
        ([0, 3], [0, 1], "ends at 3"),
        ([0, 2, 1, 2], [0, 1], "decreases"),
        ([0, 2], [0, 4], "lie in"),
        ([0, 2], [-1, 1], "lie in"),
        ([0, 2], [1, 1], "increase strictly"),
        ([0, 2, 4], [1, 2, 1, 0], "increase strictly"),
    ],
)
def test_check_masks(indptr: list[int], indices: list[int], message: str | None) -> None:
    table = torch.tensor(indptr, dtype=torch.int64), torch.tensor(indices, dtype=torch.int64)
    if message is None:
        check_masks(*table, 4)
    else:
        with pytest.raises(ValueError, match=message):
            check_masks(*table, 4)


def test_a_mask_table_beyond_32_bits() -> None:
    """One label stands for all 2^31 of the first row."""
    many = 2**31 + 3
    indices = torch.tensor([3]).expand(many + 1)
    indptr = torch.tensor([0, many, many + 1])
    masks = heads(mask_indptr=indptr, mask_indices=indices, mask_rows=torch.tensor([1, -1, 1, 1]))
    entries, scores = masked_scores(**masks)
    assert entries.tolist() == [0, 1, 1, 2, 3]
    logits = torch.tensor([0.0, -3.0, 5.5])
    torch.testing.assert_close(scores, torch.sigmoid(logits))
