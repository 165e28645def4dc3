from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.tiny_shop import write_shop
from training.data import DataError, DataSet
from training.refresh_data import RefreshData, write_refresh_data


def line(product_id: str, category: str = "wear/dress") -> dict[str, Any]:
    return {
        "product_id": product_id,
        "title": f"thing {product_id}",
        "category": category,
        "attributes": [{"name": "Color", "value": "red"}],
    }


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
    return path


def made(
    tmp_path: Path,
    lines: list[dict[str, Any]],
    *,
    replay: int = 50,
    hold: float = 0.2,
    compare_on: str = "test",
) -> tuple[RefreshData, DataSet]:
    new = write(tmp_path / "new.jsonl", lines)
    room = tmp_path / "room"
    room.mkdir()
    found = write_refresh_data(
        DataSet(tmp_path / "data"),
        [new],
        room,
        replay=replay,
        hold=hold,
        compare_on=compare_on,
        seed=1,
    )
    return found, DataSet(room)


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "data")


def ids(data: DataSet, split: str) -> list[str]:
    return [item.product.product_id for item in data.products(split)]


def test_new_and_old_products_by_split(tmp_path: Path) -> None:
    found, data = made(tmp_path, [line(f"new-{number}") for number in range(500)])
    assert found.train_new + found.valid_new + found.test_new == 500
    assert abs(found.valid_new - 100) < 40
    assert abs(found.test_new - 100) < 40
    assert (found.train_old, found.valid_old, found.test_old) == (50, 60, 40)
    splits = {split: ids(data, split) for split in ("train", "valid", "test")}
    assert sum(map(len, splits.values())) == len(set().union(*splits.values())) == 650
    assert sum(each.startswith("new-") for each in splits["test"]) == found.test_new
    assert data.taxonomy == DataSet(tmp_path / "data").taxonomy
    written = {item.product.product_id: item for item in data.products("train")}
    assert {
        label for key, item in written.items() if key.startswith("new-") for label in item.label_ids
    } == {"Color=red"}


def test_the_same_product_is_always_on_the_same_side(tmp_path: Path) -> None:
    _, first = made(tmp_path, [line(f"new-{number}") for number in range(100)])
    held = set(ids(first, "test"))
    (tmp_path / "room").rename(tmp_path / "before")
    _, second = made(tmp_path, [line(f"new-{number}") for number in range(50, 200)])
    assert held & set(ids(second, "train")) == set()


def test_a_product_of_the_data_set_stays_on_the_side_of_its_split(tmp_path: Path) -> None:
    """Else it would be trained on now, and compared by in a later refresh that lacks its label."""
    known = {
        split: {f"{split}-{number}" for number in range(20)} for split in ("train", "valid", "test")
    }
    lines = [line(each, "home/lamp") for split in known.values() for each in sorted(split)]
    found, data = made(tmp_path, lines, replay=160)
    assert (found.train_new, found.valid_new, found.test_new) == (20, 20, 20)
    for split, expected in known.items():
        labels = {item.product.product_id: item.category for item in data.products(split)}
        assert expected <= labels.keys()
        assert {labels[each] for each in expected} == {"home/lamp"}


def test_what_another_refresh_compares_by_is_kept_apart(tmp_path: Path) -> None:
    """Splits that releases are compared by in turn: neither's products are trained on."""
    fresh = [line(f"fresh-{number}", "home/lamp") for number in range(30)]
    write(tmp_path / "data" / "fresh.jsonl", fresh)
    corrected = [line(f"test-{number}") for number in range(30)] + [line("train-0")]
    corrected += [line(each["product_id"]) for each in fresh[:20]]
    found, data = made(tmp_path, corrected, replay=160, compare_on="fresh")
    assert (found.train_new, found.valid_new, found.test_new, found.apart) == (1, 0, 20, 30)
    assert found.replaced == 51
    assert sorted(ids(data, "test")) == sorted(each["product_id"] for each in fresh)
    learned = {*ids(data, "train"), *ids(data, "valid")}
    assert not any(each.startswith(("test-", "fresh-")) for each in learned)
    assert "30 labels of test products kept apart" in found.lines()


def test_corrections_that_are_all_held_say_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(1 are of valid, 2 are compared by, 0 stay apart, 0"):
        made(tmp_path, [line(each) for each in ("test-0", "test-1", "valid-0")])


def test_a_new_label_replaces_the_old_one_everywhere(tmp_path: Path) -> None:
    corrected = [line(each) for each in ("test-0", "test-1", "valid-0", "train-0")]
    more = [line(f"new-{number}") for number in range(20)]
    found, data = made(tmp_path, [*corrected, *more], replay=160)
    assert found.replaced == 4
    everywhere = [each for split in ("train", "valid", "test") for each in ids(data, split)]
    assert len(everywhere) == len(set(everywhere)) == 260 + 20


def test_of_one_product_the_last_label_counts(tmp_path: Path) -> None:
    lines = [line("twice", "wear/shoe"), line("once"), line("twice", "home/lamp")]
    found, data = made(tmp_path, lines, hold=0)
    assert found.again == 1
    assert found.train_new == 2
    labels = {item.product.product_id: item.category for item in data.products("train")}
    assert labels["twice"] == "home/lamp"


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of them to train on"):
        made(tmp_path, [])


def test_what_no_release_can_be_right_about_is_left_out(tmp_path: Path) -> None:
    """Hostile names stay in the file: only their count is said."""
    hostile = [line(f"odd-{number}", "\x1b[2J" + "x" * 100_000) for number in range(9)]
    inner = [line("inner", "wear"), line("test-0", "gone")]
    good = [line(f"new-{number}") for number in range(20)]
    found, data = made(tmp_path, [*hostile, *inner, *good])
    assert found.left_out == 11
    assert found.train_new + found.valid_new + found.test_new == 20
    assert found.test_old == 39
    leaves = set(data.taxonomy.leaves)
    for split in ("train", "valid", "test"):
        assert {item.category for item in data.products(split)} <= leaves
    assert "11 products left out" in found.lines()[-1]
    assert "\x1b" not in "".join(found.lines())


def test_only_unknown_categories_are_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of them to train on .*, 3 products have a category"):
        made(tmp_path, [line(f"new-{number}", "gone") for number in range(3)])
