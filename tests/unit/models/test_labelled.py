from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from models.errors import ProductError
from models.labelled import parse_labelled

RAW: dict[str, Any] = {"product_id": "1", "title": "red dress", "category": "wear/dress"}


def test_attributes_are_pairs_each_once() -> None:
    pairs = [{"name": "Color", "value": "red"}, {"name": "A=B", "value": "c=d"}]
    found = parse_labelled(RAW | {"attributes": [*pairs, pairs[0]]})
    assert found.attributes == (("Color", "red"), ("A=B", "c=d"))
    assert found.label_ids == {"Color=red", "A%3DB=c=d"}
    assert parse_labelled(RAW | {"attributes": None}).attributes == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"category": None}, "missing_field"),
        ({"category": ""}, "missing_field"),
        ({"category": ["wear/dress"]}, "missing_field"),
        ({"attributes": {"Color": "red"}}, "wrong_type"),
        ({"attributes": "Color=red"}, "wrong_type"),
        ({"attributes": [["Color", "red"]]}, "wrong_type"),
        ({"attributes": [{"name": "Color"}]}, "wrong_type"),
        ({"attributes": [{"name": "Color", "value": 3}]}, "wrong_type"),
    ],
)
def test_what_is_not_of_this_form_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProductError) as refused:
        parse_labelled(RAW | changes)
    assert refused.value.reason == reason


def test_reading_products_and_taxonomies_waits_for_no_torch() -> None:
    program = (
        "import sys, models.labelled, models.taxonomies.native, training.data, worker.corrections; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
