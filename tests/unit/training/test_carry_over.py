from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.product import Product
from models.taxonomy import Taxonomy
from training.carry_over import (
    RowChange,
    carry_over,
    category_names,
    classifier_of_names,
    label_names,
    rows_from_names,
)


def named(identifier: str) -> Product:
    return Product(identifier, None, "", identifier, "", (), (), None)


def unasked(_: Sequence[Product]) -> Tensor:
    raise AssertionError("no id is new")


def test_rows_follow_their_ids() -> None:
    weights = {
        "head.weight": torch.arange(6.0).reshape(3, 2),
        "head.bias": torch.tensor([10.0, 11, 12]),
        "body.weight": torch.ones(4),
    }
    wanted = {
        "head.weight": torch.empty(2, 2),
        "head.bias": torch.empty(2),
        "body.weight": torch.empty(4),
    }
    change = RowChange(["a", "b", "c"], ["c", "a"], named, unasked)
    found = carry_over(weights, wanted, {"head.": change})
    assert found["head.weight"].tolist() == [[4, 5], [0, 1]]
    assert found["head.bias"].tolist() == [12, 10]
    assert found["body.weight"] is weights["body.weight"]


def test_new_rows_stand_where_their_names_say() -> None:
    torch.manual_seed(0)
    places = {each: torch.randn(4) for each in "abcdefghij"}
    truth = torch.randn(4, 3)

    def encode(products: Sequence[Product]) -> Tensor:
        return torch.stack([places[product.title] for product in products])

    def row(identifier: str) -> Tensor:
        return torch.nn.functional.normalize(places[identifier], dim=0) @ truth

    before = list("abcdefgh")
    rows = torch.stack([row(each) for each in before])
    weights = {"head.weight": rows[:, :2], "head.bias": rows[:, 2]}
    now = ["x" if each == "b" else each for each in before]
    places["x"] = 3 * places["c"] + 0.01
    change = RowChange(before, [*now, "i"], named, encode)
    wanted = {"head.weight": torch.empty(9, 2), "head.bias": torch.empty(9)}
    found = carry_over(weights, wanted, {"head.": change})
    made = torch.cat([found["head.weight"], found["head.bias"][:, None]], dim=1)
    for place, each in enumerate(now):
        if each != "x":
            assert torch.equal(made[place], row(each))
    # A name of another length and nearly the same direction: nearly the row of that direction.
    near = (made[1][None] - rows).norm(dim=1)
    assert before[int(near.argmin())] == "c"


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_an_all_new_classifier_tells_its_names_apart(scale: float) -> None:
    torch.manual_seed(0)
    names = scale * torch.randn(5, 16)
    weight, bias = classifier_of_names(names)
    logits = names @ weight.T + bias
    assert logits.argmax(dim=1).tolist() == list(range(5))
    assert (logits.diagonal() > 0).all()
    assert float(logits[~torch.eye(5, dtype=torch.bool)].max()) < 0
    assert float(logits.abs().max()) <= 2


def test_a_classifier_of_names_that_read_alike_prefers_none() -> None:
    weight, bias = classifier_of_names(torch.ones(3, 4))
    logits = torch.ones(3, 4) @ weight.T + bias
    torch.testing.assert_close(logits, logits[:1, :1].expand(3, 3))


def test_rows_of_names_that_nothing_is_like_are_the_mean() -> None:
    known = torch.eye(4)[:3]
    rows = torch.tensor([[0.0], [3.0], [6.0]])
    found = rows_from_names(known, rows, torch.eye(4)[3:])
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(3)


def test_one_known_row_is_enough() -> None:
    found = rows_from_names(torch.ones(1, 2), torch.tensor([[1.0, 2]]), torch.tensor([[0.0, 1]]))
    assert found.tolist() == [[1, 2]]


def test_what_is_no_row_must_fit() -> None:
    with pytest.raises(ModelError, match="taxonomy cannot change"):
        carry_over({"body": torch.ones(3)}, {"body": torch.ones(4)}, {})
    with pytest.raises(ModelError, match="another network"):
        carry_over({"body": torch.ones(3)}, {"soul": torch.ones(3)}, {})


def taxonomy(leaf: str, name: str) -> Taxonomy:
    return Taxonomy.from_json(
        orjson.dumps(
            {
                "name": "shop",
                "version": "1",
                "categories": [
                    {"id": "wear", "name": "Wear", "parent": None},
                    {"id": leaf, "name": name, "parent": "wear"},
                ],
                "attributes": [{"name": "Color", "values": [name]}],
                "relevant": {leaf: {"Color": [name]}},
            }
        )
    )


def test_names_of_ids_that_are_gone_are_those_they_had() -> None:
    before, now = taxonomy("old", "Hat"), taxonomy("new", "Cap")
    categories = category_names(before, now)
    assert (categories("old").title, categories("old").description) == ("Hat", "Wear")
    assert categories("new").title == "Cap"
    labels = label_names(before, now)
    (gone,), (current,) = before.label_ids(), now.label_ids()
    assert (labels(gone).title, labels(gone).description) == ("Hat", "Color")
    assert labels(current).title == "Cap"


def test_rows_before_the_first_id_stay() -> None:
    weights = {"told.weight": torch.arange(6.0).reshape(3, 2)}
    change = RowChange(["a", "b"], ["b"], named, unasked, first=1)
    found = carry_over(weights, {"told.weight": torch.empty(2, 2)}, {"told.": change})
    assert found["told.weight"].tolist() == [[0, 1], [4, 5]]
