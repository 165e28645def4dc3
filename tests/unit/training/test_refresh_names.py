"""What a refresh calls departments and the next version; nothing is trained."""

from __future__ import annotations

import orjson
import pytest

from models.labelled import parse_labelled
from models.taxonomy import Taxonomy
from training.refresh import _departments, next_version


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


@pytest.mark.parametrize(
    ("version", "following"),
    [("1", "2"), ("9", "10"), ("2026-09", "2026-10"), ("v1.09", "v1.10"), ("beta", None)],
)
def test_next_version(version: str, following: str | None) -> None:
    assert next_version(version) == following
