from __future__ import annotations

import pytest

from tests.chaos.cells import CELLS, choose, split


def test_the_matrix_is_whole() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("wanted", "num"),
    [("", 12), ("kill9", 4), ("broker", 6), ("kill9-worker,sigstop-broker", 4), ("-ordered", 6)],
)
def test_cells_are_chosen_by_their_names(wanted: str, num: int) -> None:
    chosen = choose(wanted)
    assert len(chosen) == num
    assert [cell for cell in CELLS if cell in chosen] == chosen


def test_a_text_that_no_cell_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'network'.*kill9-worker-ordered"):
        choose("kill9,network")


@pytest.mark.parametrize(("products", "num"), [(100_000, 12), (12, 12), (500, 3), (7, 1)])
def test_every_product_has_its_cell(products: int, num: int) -> None:
    counts = split(products, CELLS[:num])
    assert len(counts) == num
    assert sum(counts) == products
    assert max(counts) - min(counts) <= 1
