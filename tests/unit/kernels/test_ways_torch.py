"""The ways of the torch twin: each gives the same scores, and the model of time chooses well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels import _logits_torch, masked_scores
from kernels._logits_torch import force_way
from kernels._ways_torch import WAYS, Problem, Way, choose

# As on Shopify's taxonomy, a batch of many categories.
MANY = Problem(
    num_products=256,
    num_features=384,
    num_labels=27_675,
    num_entries=125_184,
    num_groups=249,
    num_row_labels=121_761,
    is_narrow=False,
)
# The same number of products, all of one category.
ONE = MANY._replace(num_groups=1, num_row_labels=489)

# Rows of a mask table, and batches: of several categories, side by side or not; of one; of one
# product; none of which has labels.
_ROWS = [[1, 4, 9, 16, 25], [0, 1, 2, 3], [], [29]]
_BATCHES = [[3, 0, 2, 1, 0, -1], [2, 0, 0, 0, 1], [0, 0, 0], [1], [2, -1]]


@pytest.fixture
def forced() -> Iterator[None]:
    yield
    force_way(None)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("batch", _BATCHES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_scores(
    way: Way, dtype: torch.dtype, batch: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three label rows are copied at once: two mask rows have more.
    monkeypatch.setattr(_logits_torch, "_BLOCK_ELEMENTS", 3 * 8)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(len(batch), 8, generator=random).to(dtype)
    weight = torch.randn(30, 8, generator=random).to(dtype)
    bias = torch.randn(30, generator=random).to(dtype)
    indptr = torch.tensor([0, 5, 9, 9, 10])
    indices = torch.tensor([each for row in _ROWS for each in row])
    taken = []
    for name in WAYS:
        spied = getattr(_logits_torch, f"_{name}")
        monkeypatch.setattr(
            _logits_torch, f"_{name}", lambda *a, n=name, f=spied: taken.append(n) or f(*a)
        )
    force_way(way)
    given = indptr, indices, torch.tensor(batch)
    ends, scores = masked_scores(features, weight, bias, *given, temperature=0.7)
    labels = [_ROWS[row] if row >= 0 else [] for row in batch]
    assert taken == ([way] if any(labels) else [])
    assert ends.diff().tolist() == [len(each) for each in labels]

    logits = (features.double() @ weight.double().T + bias.double()) / 0.7
    wanted = [logits[product, each] for product, each in enumerate(labels)]
    torch.testing.assert_close(
        scores.double(), torch.cat(wanted).sigmoid(), rtol=1e-5, atol=1e-6, check_dtype=False
    )


def test_a_batch_of_one_category_is_grouped_and_one_of_many_is_not() -> None:
    assert choose(ONE) == "grouped"
    assert choose(MANY) == "sampled"


def test_one_product_is_sampled_in_place_but_where_it_must_be_widened() -> None:
    single = ONE._replace(num_products=1, num_entries=489)
    assert choose(single) == "sampled"
    assert choose(single._replace(is_narrow=True)) == "grouped"


def test_many_products_of_few_labels_are_sampled() -> None:
    assert (
        choose(ONE._replace(num_products=16_384, num_entries=65_536, num_row_labels=4)) == "sampled"
    )


def test_all_touched_rows_are_widened_only_where_they_are_few() -> None:
    narrow = MANY._replace(is_narrow=True)
    assert choose(narrow._replace(num_labels=7_979)) == "sampled"
    # Few entries of each touched label.
    assert choose(narrow._replace(num_labels=131_072)) == "grouped"
    # More than memory allows, however fast it would be.
    many = narrow._replace(num_features=16_384, num_labels=7_979, num_entries=1)
    assert choose(many) == "grouped"
