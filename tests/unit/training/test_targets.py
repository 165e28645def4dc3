from __future__ import annotations

import json

import numpy as np

from models.labels import LabelSpace
from models.prepare import Ragged
from models.taxonomy import Taxonomy, attribute_rows
from training.targets import most_values

TAXONOMY = Taxonomy.from_json(
    json.dumps(
        {
            "name": "shop",
            "version": "1",
            "categories": [{"id": "lamp", "name": "Lamp", "parent": None}],
            "attributes": [
                {"name": "Color", "values": ["red", "blue"]},
                {"name": "Power", "values": ["5 W"]},
                {"name": "Room", "values": ["hall", "attic"]},
            ],
            "relevant": {"lamp": {"Color": ["red", "blue"], "Power": ["5 W"]}},
        }
    ).encode()
)
LABELS = LabelSpace(TAXONOMY.label_ids())


def rows(*products: list[int]) -> Ragged:
    indptr = np.cumsum([0, *map(len, products)])
    return Ragged(np.array([row for of in products for row in of], dtype=np.int64), indptr)


def test_the_most_values_that_one_product_has() -> None:
    assert most_values(rows([0, 2], [], [1]), TAXONOMY, LABELS) == {
        "Color": 1,
        "Power": 1,
        "Room": 0,
    }
    assert most_values(rows([0, 1], [1, 2]), TAXONOMY, LABELS)["Color"] == 2
    assert set(most_values(rows(), TAXONOMY, LABELS).values()) == {0}


def test_labels_know_their_attribute() -> None:
    assert attribute_rows(TAXONOMY, LABELS, ["Room", "Color"]) == [0, 0, -1, 2, 2]
    reversed_labels = LabelSpace(LABELS.ids[::-1])
    assert attribute_rows(TAXONOMY, reversed_labels, ["Power"]) == [-1, -1, 1, -1, -1]
