from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.errors import SortimentError
from models.taxonomy import label_id
from tests.tiny_shop import write_shop
from training.data import DataSet
from training.foreign_answers import read_answers, read_scored_labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return DataSet(write_shop(tmp_path_factory.mktemp("shop") / "data"))


def lines(data: DataSet, attributes: object) -> str:
    rows = [
        {"product_id": item.product.product_id, "attributes": attributes}
        for item in data.products("test")
    ]
    return "".join(json.dumps(row) + "\n" for row in reversed(rows))


def test_relevant_labels_best_first(data: DataSet, tmp_path: Path) -> None:
    # A size is relevant to no category, and a shape is no attribute.
    given = [["Color", "red", 0.2], ["Size", "S", 0.9], ["Shape", "round", 1], ["Color", "blue", 1]]
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(lines(data, given).encode()))
    items = list(data.products("test"))
    found = read_scored_labels(path, items, data.taxonomy)
    assert found.indptr.tolist() == list(range(0, 2 * len(items) + 1, 2))
    label_ids = data.taxonomy.label_ids()
    assert [label_ids[row] for row in found.rows[:2]] == ["Color=blue", "Color=red"]
    assert found.scores[:2].tolist() == pytest.approx([1, 0.2])


def test_attributes_are_named_as_the_taxonomy_names_them(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "data")
    for path in folder.iterdir():
        text = gzip.decompress(path.read_bytes()).decode()
        path.write_bytes(gzip.compress(text.replace('"Color"', '"Color=%"').encode()))
    data = DataSet(folder)
    items = list(data.products("test"))
    path = tmp_path / "answers.jsonl"
    path.write_text(lines(data, [["Color=%", "red", 0.2]]))
    found = read_scored_labels(path, items, data.taxonomy)
    assert len(found.rows) == len(items)
    assert {data.taxonomy.label_ids()[row] for row in found.rows} == {label_id("Color=%", "red")}


def test_answers_are_relevant_and_each_given_once(data: DataSet, tmp_path: Path) -> None:
    rows = [
        {
            "product_id": item.product.product_id,
            "category": "home/lamp",
            "attributes": [["Size", "S"], ["Color", "red"], ["Color", "red"], ["Shape", "round"]],
        }
        for item in data.products("test")
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = list(data.products("test"))
    categories, labels = read_answers(path, items, data.taxonomy)
    assert categories == ["home/lamp"] * len(items)
    assert labels == [["Color=red"]] * len(items)


@pytest.mark.parametrize("bad", [{"category": 1}, {"attributes": [["Color"]]}, {"attributes": 1}])
def test_answers_of_another_form(data: DataSet, tmp_path: Path, bad: dict[str, object]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"product_id": "1", "category": "a", "attributes": [], **bad}))
    with pytest.raises(SortimentError, match="give JSON lines of product_id and category and attr"):
        read_answers(path, [], data.taxonomy)


def test_files_that_cannot_be_read(data: DataSet, tmp_path: Path) -> None:
    items = list(data.products("test"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(lines(data, []).encode())[:-12])
    for path in (cut, tmp_path / "missing.jsonl"):
        with pytest.raises(SortimentError, match=rf"{path.name} cannot be read"):
            read_scored_labels(path, items, data.taxonomy)


def test_files_of_another_form(data: DataSet, tmp_path: Path) -> None:
    items = list(data.products("test"))
    path = tmp_path / "answers.jsonl"
    for text in (lines(data, [["Color", "red"]]), '{"product_id": "a"}\n', "[]\n", "{\n"):
        path.write_text(text)
        with pytest.raises(SortimentError, match=r"give JSON lines of product_id and attributes"):
            read_scored_labels(path, items, data.taxonomy)
    path.write_text(lines(data, []).split("\n", 1)[1])
    with pytest.raises(SortimentError, match=r"lacks 1 products, first test-"):
        read_scored_labels(path, items, data.taxonomy)
