import json

import numpy as np
import pytest

from models.labels import LabelSpace
from models.taxonomy import (
    Taxonomy,
    compile_mask,
    compile_masks,
    label_id,
    load_taxonomy,
    localized,
)

SHOP = {
    "name": "shop",
    "version": "3",
    "locale": "en",
    "categories": [
        {"id": "home", "name": "Home", "parent": None, "names": {"ja": "家"}},
        {"id": "mugs", "name": "Mugs", "parent": "cups"},
        {"id": "cups", "name": "Cups", "parent": "home"},
        {"id": "toys", "name": "Toys", "parent": None},
    ],
    "attributes": [
        {"name": "Color", "values": ["red", "blue", "green"]},
        {"id": "lid", "name": "Lid", "values": [{"id": "y", "name": "Yes", "names": {"ja": "有"}}]},
        {"name": "Handle color", "values_from": "Color"},
    ],
    "relevant": {
        "mugs": {"lid": True, "Color": ["green", "red"]},
        "cups": {"Handle color": True},
    },
}


@pytest.fixture
def shop() -> Taxonomy:
    return Taxonomy.from_json(json.dumps(SHOP).encode())


def test_tree(shop: Taxonomy) -> None:
    assert list(shop.categories) == ["home", "mugs", "cups", "toys"]
    assert shop.leaves == ("mugs", "toys")
    assert shop.departments == ("home", "toys")
    assert [category.id for category in shop.path("mugs")] == ["home", "cups", "mugs"]
    assert shop.path("mugs") is shop.path("mugs")
    assert [category.id for category in shop.path("toys")] == ["toys"]
    assert {each: shop.department_of(each) for each in shop.categories} == {
        "home": "home",
        "mugs": "home",
        "cups": "home",
        "toys": "toys",
    }


def test_labels_stand_in_the_order_of_the_file(shop: Taxonomy) -> None:
    assert shop.label_ids() == (
        "Color=red",
        "Color=blue",
        "Color=green",
        "lid=y",
        "Handle color=red",
        "Handle color=blue",
        "Handle color=green",
    )
    assert shop.relevant_label_ids("mugs") == ("Color=red", "Color=green", "lid=y")
    assert shop.label_numbers("mugs").tolist() == [0, 2, 3]
    assert shop.label("lid=y") == ("lid=y", "lid", "Lid", "y", "Yes")
    assert shop.label("Handle color=red").attribute == "Handle color"


def test_inner_nodes_pass_nothing_down(shop: Taxonomy) -> None:
    assert len(shop.relevant_label_ids("cups")) == 3
    assert shop.relevant_label_ids("home") == ()
    assert shop.relevant_label_ids("toys") == ()


@pytest.mark.parametrize("lookup", ["path", "department_of", "relevant_label_ids", "label"])
def test_an_unknown_id_is_a_key_error(shop: Taxonomy, lookup: str) -> None:
    with pytest.raises(KeyError, match="nope"):
        getattr(shop, lookup)("nope")


def test_label_ids_are_injective() -> None:
    pairs = [("a", "b=c"), ("a=b", "c"), ("a%3Db", "c"), ("a%", "b"), ("a", "%b"), ("a%25", "b")]
    assert len({label_id(*pair) for pair in pairs}) == len(pairs)
    assert label_id("100%=x", "50%=y") == "100%25%3Dx=50%=y"


def test_localized_names(shop: Taxonomy) -> None:
    home = shop.categories["home"]
    assert (home.name_in("ja"), home.name_in("JA-jp"), home.name_in("fr"), home.name_in("")) == (
        "家",
        "家",
        "Home",
        "Home",
    )
    assert localized("d", {"pt-br": "b", "pt-pt": "p"}, "pt-PT") == "p"
    assert localized("d", {"pt-br": "b", "pt-pt": "p"}, "pt") == "b"
    assert shop.locales == ("en", "ja")


def test_nothing_can_be_changed(shop: Taxonomy) -> None:
    with pytest.raises(TypeError):
        shop.categories["new"] = shop.categories["home"]  # type: ignore[index]
    with pytest.raises(TypeError):
        shop.relevant["mugs"]["Color"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        shop.version = "4"  # type: ignore[misc]


def test_masks_of_a_label_space_in_another_order(shop: Taxonomy) -> None:
    # "Color=blue" is relevant nowhere, "other=x" is unknown to the taxonomy, "Color=red" is lacking
    space = LabelSpace(("lid=y", "other=x", "Color=green", "Color=blue", "Handle color=blue"))
    masks = compile_masks(shop, ["toys", "mugs", "cups", "mugs"], space)
    assert [masks.row(row).tolist() for row in range(4)] == [[], [0, 2], [4], [0, 2]]
    assert masks.num_labels == 5
    assert masks.indices.dtype == np.uint32
    assert compile_mask(shop, "mugs", space).tolist() == [0, 2]
    assert compile_mask(shop, "toys", space).dtype == np.uint32


def test_masks_of_no_categories(shop: Taxonomy) -> None:
    assert len(compile_masks(shop, [], LabelSpace(shop.label_ids()))) == 0


def test_masks_of_unknown_categories_are_refused(shop: Taxonomy) -> None:
    space = LabelSpace(shop.label_ids())
    # "toys" has no entry either: the shared empty mask must not hide the unknown category.
    with pytest.raises(KeyError, match="nope"):
        compile_masks(shop, ["toys", "nope"], space)
    with pytest.raises(KeyError, match="nope"):
        compile_mask(shop, "nope", space)


def test_equal_taxonomies_are_equal_and_hash_alike(shop: Taxonomy, tmp_path) -> None:
    path = tmp_path / "shop.json"
    path.write_bytes(shop.to_json())
    again = load_taxonomy(path)
    assert again == shop
    assert hash(again) == hash(shop)
    assert again.to_json() == shop.to_json()


def test_a_chain_of_20000_categories() -> None:
    depth = 20_000
    categories = [
        {"id": f"c{n}", "name": "c", "parent": f"c{n + 1}" if n < depth else None}
        for n in range(depth + 1)
    ]
    chain = {"name": "n", "version": "1", "categories": categories, "attributes": []}
    taxonomy = Taxonomy.from_json(json.dumps(chain).encode())
    assert taxonomy.leaves == ("c0",)
    assert len(taxonomy.path("c0")) == depth + 1
    assert taxonomy.department_of("c0") == f"c{depth}"
