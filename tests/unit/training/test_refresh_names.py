"""What a refresh calls departments; nothing is trained."""

from __future__ import annotations

import orjson

from models.labelled import parse_labelled
from models.taxonomy import Taxonomy
from training.refresh import _departments


def test_departments_of_one_name_are_told_apart() -> None:
    taxonomy = Taxonomy.from_json(
        orjson.dumps(
            {
                "name": "shop",
                "version": "1",
                "categories": [
                    {"id": "a", "name": "Wear", "parent": None},
                    {"id": "b", "name": "Wear", "parent": None},
                    {"id": "c", "name": "Home", "parent": None},
                ],
                "attributes": [],
                "relevant": {},
            }
        )
    )
    items = [parse_labelled({"product_id": each, "title": "x", "category": each}) for each in "abc"]
    assert _departments(taxonomy, items) == ["Wear (a)", "Wear (b)", "Home"]
