from __future__ import annotations

from collections import Counter

from models.product import Product
from models.taxonomy import Category, Taxonomy
from tests.releases import TAXONOMY
from training.changes import Changes
from training.data import LabelledProduct
from training.recipe import ChangeSettings

LEAVES = TAXONOMY.leaves


def items(count: int = 400) -> list[LabelledProduct]:
    return [
        LabelledProduct(
            Product(str(row), None, "", f"one two {row}", "text", ("bullet",), (), None),
            LEAVES[row % len(LEAVES)],
            (),
        )
        for row in range(count)
    ]


def changed(split: str, seed: int = 1, **shares: float) -> list[LabelledProduct]:
    changes = Changes(ChangeSettings(**shares), seed, TAXONOMY)
    return list(changes.of(split, iter(items())))


def test_nothing_is_changed_by_default() -> None:
    assert changed("train") == items()
    assert Changes(ChangeSettings(), 1, TAXONOMY).key("train") is None
    noisy = Changes(ChangeSettings(wrong_labels=0.4, label_names=0.1), 1, TAXONOMY)
    assert noisy.key("train") is not None
    assert noisy.key("valid") is None


def test_wrong_labels_are_other_leaves_of_training_alone() -> None:
    found = changed("train", wrong_labels=0.4)
    pairs = [(one.category, two.category) for one, two in zip(items(), found, strict=True)]
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    assert 0.33 < len(wrong) / len(pairs) < 0.47
    assert {two for _, two in wrong} == set(LEAVES)
    assert changed("test", wrong_labels=0.4) == items()
    assert found == changed("train", wrong_labels=0.4)
    assert found != changed("train", seed=2, wrong_labels=0.4)
    # A larger share has the wrong ones of a smaller one among its own.
    fewer = changed("train", wrong_labels=0.2)
    assert all(
        two.category == three.category
        for one, two, three in zip(items(), fewer, found, strict=True)
        if one.category != two.category
    )


def test_dropped_texts_leave_the_title_in_every_split() -> None:
    for split in ("train", "valid", "test"):
        found = changed(split, dropped_texts=0.5)
        bare = [item for item in found if not item.product.description]
        assert 0.4 < len(bare) / len(found) < 0.6
        assert all(not item.product.bullets and item.product.title for item in bare)
        assert [item.category for item in found] == [item.category for item in items()]
    untitled = LabelledProduct(Product("1", None, "", "", "text", (), (), None), LEAVES[0], ())
    every = Changes(ChangeSettings(dropped_texts=1.0), 1, TAXONOMY)
    assert list(every.of("train", iter([untitled]))) == [untitled]


def test_label_names_are_added_to_shuffled_titles() -> None:
    found = changed("train", label_names=0.3)
    counts = Counter(item.product.product_id for item in found)
    added = [number for number, count in counts.items() if count == 2]
    assert 0.2 < len(added) / 400 < 0.4
    for place, item in enumerate(found):
        if place and found[place - 1].product.product_id == item.product.product_id:
            name = TAXONOMY.categories[item.category].name
            assert name in item.product.title
            rest = item.product.title.replace(name, " ").split()
            assert sorted(rest) == sorted(["one", "two", item.product.product_id])
            assert (item.product.description, item.product.bullets) == ("", ())
            assert item.category == found[place - 1].category


def test_a_taxonomy_of_one_leaf_has_no_wrong_ones() -> None:
    only = Taxonomy.from_json(
        b'{"name": "one", "version": "1", "categories": [{"id": "a", "name": "A", "parent": null}],'
        b' "attributes": [], "relevant": {}}'
    )
    assert isinstance(only.categories["a"], Category)
    one = LabelledProduct(Product("1", None, "", "t", "", (), (), None), "a", ())
    noisy = Changes(ChangeSettings(wrong_labels=1.0), 1, only)
    assert list(noisy.of("train", iter([one]))) == [one]
