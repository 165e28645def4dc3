from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.errors import SortimentError
from tests.tiny_shop import write_shop
from training.data import DataSet
from training.scored_answers import read_scored_labels


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
