"""The ways of the torch twin: each gives the same scores, and the model of time chooses well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from kernels import _entries_torch, masked_scores
from kernels._entries_torch import force_way
from kernels._ways_torch import CHUNK_ELEMENTS, WAYS, Problem, Way, choose

# As on Shopify's taxonomy, a batch of many categories.
MANY = Problem(
    num_products=256,
    num_features=384,
    num_labels=27_675,
    num_entries=125_184,
    num_touched=26_306,
    num_row_labels=121_761,
    is_narrow=False,
)
# The same number of products, all of one category.
ONE = replace(MANY, num_touched=489, num_row_labels=489)


@pytest.fixture
def forced() -> Iterator[None]:
    yield
    force_way(None)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_scores(
    way: Way, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chunks of three entries: a product has more.
    monkeypatch.setattr(_entries_torch, "CHUNK_ELEMENTS", 3 * 8)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(5, 8, generator=random).to(dtype)
    weight = torch.randn(30, 8, generator=random).to(dtype)
    bias = torch.randn(30, generator=random).to(dtype)
    rows = [[1, 4, 9, 16, 25], [0, 1, 2, 3], [], [29]]
    indptr = torch.tensor([0, 5, 9, 9, 10])
    indices = torch.tensor([each for row in rows for each in row])
    mask_rows = torch.tensor([3, 0, 2, 1, 0])
    taken = []
    for name in ("_picked", "_chunked", "_sampled"):
        spied = getattr(_entries_torch, name)
        monkeypatch.setattr(
            _entries_torch, name, lambda *a, n=name, f=spied: taken.append(n) or f(*a)
        )
    force_way(way)
    _, scores = masked_scores(features, weight, bias, indptr, indices, mask_rows)
    in_chunks = way == "chunked" and dtype == torch.bfloat16
    assert taken[0] == ("_chunked" if in_chunks else "_picked" if way == "dense" else "_sampled")
    # A chunk holds one of the five products at least.
    assert taken.count("_sampled") == (5 if in_chunks else 0 if way == "dense" else 1)

    logits = features.double() @ weight.double().T + bias.double()
    wanted = [logits[product, rows[row]] for product, row in enumerate(mask_rows.tolist())]
    torch.testing.assert_close(
        scores.double(), torch.cat(wanted).sigmoid(), rtol=1e-5, atol=1e-6, check_dtype=False
    )


def test_a_batch_of_one_category_is_dense_and_one_of_many_is_not() -> None:
    assert choose(ONE) == "dense"
    assert choose(MANY) == "sampled"


def test_what_memory_does_not_allow_is_not_chosen() -> None:
    all_labels = replace(
        MANY,
        num_products=64,
        num_features=768,
        num_labels=1_000_000,
        num_entries=64_000_000,
        num_touched=1_000_000,
        num_row_labels=1_000_000,
    )
    assert choose(all_labels) == "sampled"
    assert choose(replace(all_labels, is_narrow=True)) == "chunked"
    assert choose(replace(all_labels, num_features=1, num_products=512)) == "sampled"


def test_one_product_is_sampled_in_place_but_where_it_must_be_widened() -> None:
    single = replace(ONE, num_products=1, num_entries=489)
    assert choose(single) == "sampled"
    assert choose(replace(single, is_narrow=True)) == "dense"


def test_rows_are_widened_at_once_up_to_what_memory_allows() -> None:
    narrow = replace(MANY, is_narrow=True)
    assert choose(narrow) == "sampled"
    # Few entries of each touched label: widening them all costs more than the chunks do.
    assert choose(replace(narrow, num_labels=131_072, num_touched=61_768)) == "chunked"
    assert choose(replace(narrow, num_features=16_384)) == "chunked"


def test_one_chunk_is_no_way_of_its_own() -> None:
    few = replace(MANY, num_products=8, num_entries=3_900, num_touched=3_600, is_narrow=True)
    assert few.num_entries * few.num_features < CHUNK_ELEMENTS
    # The model counts part of a chunk, as if the rest of it came for nothing.
    assert min(WAYS, key=few.nanoseconds) == "chunked"
    assert choose(few) == "dense"


def test_rows_beyond_the_caches_are_sampled_only_where_few_of_them_count() -> None:
    wide = replace(
        MANY,
        num_features=3_840,
        num_labels=7_979,
        num_touched=7_979,
        num_row_labels=100_000,
        is_narrow=True,
    )
    assert choose(wide) == "dense"
    assert choose(replace(wide, num_labels=27_675, num_touched=27_400)) == "sampled"
    assert choose(replace(wide, is_narrow=False)) == "sampled"
