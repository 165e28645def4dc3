from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.masks import (
    Shape,
    draw_categories,
    load_masks,
    paper_masks,
    shopify_like_masks,
    taxonomy_masks,
)
from kernels import check_masks


def test_paper_masks_have_489_sorted_labels_a_category() -> None:
    table = paper_masks(7_979)
    check_masks(table.indptr, table.indices, 7_979)
    assert table.num_categories == 4_000
    assert set(table.indptr.diff().tolist()) == {489}


def test_rows_are_runs_that_categories_share() -> None:
    table = paper_masks(131_072)
    rows = [set(row.tolist()) for row in table.indices.view(-1, 489)]
    runs = sum(label + 1 not in rows[0] for label in rows[0])
    assert runs < 489 / 4
    # The common attributes, a third of a row, are in other departments too.
    assert rows[0] & rows[-1]
    assert len(rows[0] & rows[1]) < 489


def test_small_label_spaces_still_give_the_lengths() -> None:
    lengths = [0, 1, 5, 9, 10]
    table = taxonomy_masks("small", 10, lengths, Shape(3, 0.5))
    check_masks(table.indptr, table.indices, 10)
    assert table.indptr.diff().tolist() == lengths
    assert table.indices[-10:].tolist() == list(range(10))


def test_a_row_longer_than_the_label_space_is_refused() -> None:
    with pytest.raises(ValueError, match="11 labels does not fit in 10"):
        taxonomy_masks("small", 10, [11], Shape(3, 0.5))


def test_tables_are_the_same_every_time() -> None:
    first, second = (taxonomy_masks("t", 1_009, [31] * 20, Shape(7, 0.3)) for _ in range(2))
    assert torch.equal(first.indices, second.indices)


def test_shopify_like_masks_have_its_sizes() -> None:
    table = shopify_like_masks()
    check_masks(table.indptr, table.indices, table.num_labels)
    lengths = table.indptr.diff().double()
    assert (table.num_categories, table.num_labels) == (8_516, 27_675)
    assert 110 < float(lengths.mean()) < 120
    assert int(lengths.max()) == 538


def test_draws_are_of_their_kind_and_repeat() -> None:
    for draw in ("uniform", "zipf", "equal"):
        drawn = draw_categories(500, 2_000, draw)
        assert drawn == draw_categories(500, 2_000, draw)
        assert len(drawn) == 2_000
        assert all(0 <= category < 500 for category in drawn)
    assert len(set(draw_categories(500, 2_000, "equal"))) == 1
    uniform, zipf = (Counter(draw_categories(500, 2_000, d)) for d in ("uniform", "zipf"))
    # The first of 500 ranks has 1 / H(500) = 15 % of all.
    assert zipf.most_common(1)[0][1] > 200 > uniform.most_common(1)[0][1]
    assert len(zipf) < len(uniform)


def test_a_mask_file_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "real.pt"
    table = taxonomy_masks("t", 64, [3, 5], Shape(4, 0.5))
    content = {"mask_indptr": table.indptr, "mask_indices": table.indices, "num_labels": 64}
    torch.save(content, path)
    read = load_masks(path)
    assert (read.name, read.num_labels) == ("real", 64)
    assert torch.equal(read.indices, table.indices)
    torch.save({**content, "num_labels": 1}, path)
    with pytest.raises(ValueError, match="must lie in"):
        load_masks(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match=r"real\.pt: expected a dict"):
        load_masks(path)
