from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.prepare import Prepared, Ragged
from models.product import Product
from tests.tiny_shop import write_shop
from training import prepared as prepared_module
from training.data import DataSet
from training.prepared import SplitOnDisk, chosen_rows, prepare_split
from training.same_texts import text_keys
from training.targets import Labeller, label_spaces

WIDTH = 100


class Letters:
    """Code points of the title, and a wide row a product, so that held rows would be seen."""

    def __init__(self) -> None:
        self.largest = 0
        self.calls = 0

    def prepare(self, products: Sequence[Product]) -> Prepared:
        self.calls += 1
        self.largest = max(self.largest, len(products))
        texts = [product.title for product in products]
        ends = np.cumsum([0, *map(len, texts)])
        points = np.array([ord(each) for text in texts for each in text], dtype=np.int32)
        wide = Ragged(
            np.ones((len(texts) * WIDTH, 4)), np.arange(len(texts) + 1, dtype=np.int64) * WIDTH
        )
        costs = np.array([len(text) for text in texts], dtype=np.int32)
        return Prepared({"points": Ragged(points, ends), "wide": wide}, costs)


def prepare(data: DataSet, cache_dir: Path, preparer: Letters, **changes: object) -> SplitOnDisk:
    categories, labels = label_spaces(data.taxonomy)
    settings = {"limit": None, "seed": 1, "preparer_key": "letters", **changes}
    return prepare_split(
        data,
        "train",
        preparer=preparer,
        taxonomy=data.taxonomy,
        categories=categories,
        labels=labels,
        cache_dir=cache_dir,
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    odd = [{"product_id": "odd", "title": "thing", "category": "attic", "attributes": []}]
    variants = [{"product_id": f"v{n}", "title": "gown", "category": "wear/dress"} for n in (1, 2)]
    return DataSet(write_shop(tmp_path / "shop", extra=variants + odd))


def test_what_is_read_from_disk_is_what_was_prepared(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_module, "_CHUNK_ROWS", 37)
    found = prepare(data, tmp_path / "cache", Letters())
    products = list(data.products("train"))
    kept, targets = Labeller(data.taxonomy, *label_spaces(data.taxonomy)).targets(products)
    wanted = Letters().prepare([products[row].product for row in kept])
    assert len(found) == len(kept) == len(products) - 1
    np.testing.assert_array_equal(found.prepared.costs, wanted.costs)
    for name, ragged in wanted.arrays.items():
        np.testing.assert_array_equal(found.prepared.arrays[name].values, ragged.values)
        np.testing.assert_array_equal(found.prepared.arrays[name].indptr, ragged.indptr)
    np.testing.assert_array_equal(found.targets.leaves, targets.leaves)
    np.testing.assert_array_equal(found.targets.mask_rows, targets.mask_rows)
    np.testing.assert_array_equal(found.targets.positives.values, targets.positives.values)
    texts = text_keys(products[row].product for row in kept)
    np.testing.assert_array_equal(found.targets.texts, texts)
    assert len(np.unique(texts)) == len(texts) - 1
    assert found.odd.unknown_categories == 1
    assert len(found.examples) == 8
    assert found.examples[0] == products[0].product
    assert found.examples[-1] == products[-1].product
    taken = found.prepared.take(np.array([5, 3]))
    assert not isinstance(taken.arrays["points"].values, np.memmap)


def test_an_entry_is_made_once_and_anew_when_anything_changes(
    data: DataSet, tmp_path: Path
) -> None:
    preparer = Letters()
    first = prepare(data, tmp_path / "cache", preparer)
    assert preparer.calls == 1
    again = prepare(data, tmp_path / "cache", preparer)
    assert preparer.calls == 1
    assert (again.digest, again.odd, again.examples) == (first.digest, first.odd, first.examples)
    assert prepare(data, tmp_path / "cache", preparer, preparer_key="x").digest != first.digest
    sampled = prepare(data, tmp_path / "cache", preparer, limit=10)
    assert sampled.odd.products == 10
    path = data.file("train")
    path.write_bytes(path.read_bytes() + path.read_bytes())
    assert len(prepare(data, tmp_path / "cache", preparer)) == 2 * len(first)
    assert preparer.calls == 4


def test_memory_does_not_grow_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_module, "_CHUNK_ROWS", 64)
    peaks = []
    for name, copies in (("small", 2), ("large", 20)):
        directory = write_shop(tmp_path / name)
        path = DataSet(directory).file("train")
        path.write_bytes(path.read_bytes() * copies)
        data, preparer = DataSet(directory), Letters()
        _ = data.taxonomy
        tracemalloc.start()
        found = prepare(data, tmp_path / f"{name}-cache", preparer)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert preparer.largest == 64
        assert len(found) == 160 * copies
    held = 160 * 18 * WIDTH * 4 * 8
    assert peaks[1] - peaks[0] < held / 50


def test_an_interrupted_preparation_leaves_nothing(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Letters):
        def prepare(self, products: Sequence[Product]) -> Prepared:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data, tmp_path / "cache", Failing())
    assert not list((tmp_path / "cache" / "prepared").iterdir())


def test_a_limit_is_a_sample_in_order() -> None:
    sample = chosen_rows(100, 10, 1)
    other = chosen_rows(100, 10, 2)
    assert sample is not None
    assert other is not None
    assert len(sample) == 10
    assert sample.tolist() == sorted(sample.tolist())
    assert sample.tolist() != other.tolist()
    assert chosen_rows(100, None, 1) is None
    assert chosen_rows(100, 100, 1) is None


def test_an_empty_split_is_empty(data: DataSet, tmp_path: Path) -> None:
    data.file("train").unlink()
    (data.directory / "train.jsonl").write_text("\n")
    found = prepare(data, tmp_path / "cache", Letters())
    assert len(found) == 0
    assert found.examples == ()
    assert json.loads(json.dumps(found.odd.products)) == 0
