"""The sample catalog: reproducible, large and varied enough, and fit for the project's readers."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from demo.catalog.build import SPLITS, write_catalog
from demo.catalog.grammar import load_grammar
from demo.catalog.noise import full_width, half_width_katakana, mark_up, shuffle_words, typo
from models.taxonomy import load_taxonomy
from models.text import normalise
from training.data import DataSet

FILES = ("train.jsonl.gz", "valid.jsonl.gz", "test.jsonl.gz", "taxonomy.json.gz")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def rows(catalog: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [orjson.loads(line) for line in gzip.open(catalog / f"{split}.jsonl.gz")]
        for split in SPLITS
    }


def test_same_seed_same_bytes(catalog: Path, tmp_path: Path) -> None:
    again = write_catalog(tmp_path / "again")
    assert [(again / name).read_bytes() for name in FILES] == [
        (catalog / name).read_bytes() for name in FILES
    ]


def test_another_seed_makes_other_products_of_the_same_taxonomy(
    catalog: Path, tmp_path: Path
) -> None:
    other = write_catalog(tmp_path / "other", seed=1)
    taxonomy = (other / "taxonomy.json.gz").read_bytes()
    assert taxonomy == (catalog / "taxonomy.json.gz").read_bytes()
    assert (other / "test.jsonl.gz").read_bytes() != (catalog / "test.jsonl.gz").read_bytes()


def test_taxonomy_is_valid_and_large_enough(catalog: Path) -> None:
    taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
    assert len(taxonomy.leaves) >= 60
    assert len(taxonomy.departments) == 8
    assert len(taxonomy.attributes) == 25
    assert {len(taxonomy.path(leaf)) for leaf in taxonomy.leaves} == {3}
    assert all(taxonomy.relevant_label_ids(leaf) for leaf in taxonomy.leaves)
    used = {name for leaf in taxonomy.leaves for name in taxonomy.relevant[leaf]}
    assert used == set(taxonomy.attributes)


def test_every_name_is_given_in_both_languages(catalog: Path) -> None:
    taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
    assert taxonomy.locales == ("en", "ja")
    for category in taxonomy.categories.values():
        assert category.name_in("ja") != category.name
    assert all("ja" in value.names for a in taxonomy.attributes.values() for value in a.values)


def test_counts_and_shares(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert {split: len(lines) for split, lines in rows.items()} == SPLITS
    products = [row for lines in rows.values() for row in lines]
    assert len(products) >= 4_000
    assert len(rows["test"]) >= 1_000
    japanese = sum(row["locale"] == "ja" for row in products) / len(products)
    assert 0.25 < japanese < 0.35
    without = sum(not row["description"] for row in products) / len(products)
    assert 0.1 < without < 0.2


def test_splits_share_neither_ids_nor_texts(rows: dict[str, list[dict[str, Any]]]) -> None:
    products = [row for lines in rows.values() for row in lines]
    assert len({row["product_id"] for row in products}) == len(products)
    assert len({(row["title"], row["description"]) for row in products}) == len(products)


def test_every_leaf_can_be_learned(rows: dict[str, list[dict[str, Any]]], catalog: Path) -> None:
    counts = Counter(row["category"] for row in rows["train"])
    assert set(counts) == set(load_taxonomy(catalog / "taxonomy.json.gz").leaves)
    assert min(counts.values()) >= 8


def test_labels_are_relevant_to_their_category(catalog: Path) -> None:
    data = DataSet(catalog)
    taxonomy = data.taxonomy
    for split in SPLITS:
        for item in data.products(split):
            assert item.label_ids <= set(taxonomy.relevant_label_ids(item.category))


def test_attributes_are_partly_not_in_the_text(rows: dict[str, list[dict[str, Any]]]) -> None:
    grammar = load_grammar()
    said = total = 0
    for row in rows["test"]:
        text = normalise(
            " ".join([row["title"], row["description"], *row["bullets"]]), 20_000
        ).lower()
        for label in row["attributes"]:
            value = grammar.attributes[label["name"]].values[label["value"]]
            forms = [normalise(form, 100).lower() for form in value.forms[row["locale"]]]
            said += any(form in text for form in forms)
            total += 1
    assert 0.7 < said / total < 0.9


def test_noise_is_there(rows: dict[str, list[dict[str, Any]]]) -> None:
    train = rows["train"]
    assert any("<p>" in row["description"] for row in train)
    assert any("<li>" in row["description"] for row in train)
    assert any("Ａ" <= character <= "Ｚ" for row in train for character in row["title"])
    assert any("ｱ" <= character <= "ﾝ" for row in train for character in row["title"])
    assert any(row["title"].isupper() for row in train)


def test_noise_functions() -> None:
    assert full_width("A-1 b") == "Ａ－１　ｂ"
    assert normalise(full_width("A-1 b"), 100) == "A-1 b"
    assert half_width_katakana("スニーカー靴") == "ｽﾆｰｶｰ靴"
    assert normalise(half_width_katakana("スニーカー"), 100) == "スニーカー"
    assert typo("abc", Random(1)) == "abc"
    assert typo("abcdef", Random(1)) != "abcdef"
    assert sorted(shuffle_words("a b c d", Random(1)).split()) == ["a", "b", "c", "d"]
    assert normalise(mark_up(["1 < 2 & 3"], Random(1)), 100) == "1 < 2 & 3"
