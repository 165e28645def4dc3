"""What the worker emits is what docs/schemas promises, whatever a seller put into a product."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import orjson
import pytest

from models.labels import LabelSpace
from models.predictor import CategoryScores, LabelScores
from models.taxonomy import Taxonomy
from tests.factories import product_event, record
from worker.assemble import Assembler
from worker.events import dead_letter, parse_event

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"

TAXONOMY = {
    "name": "t",
    "version": "2026-1",
    "categories": [
        {"id": "wear", "name": "Wear", "parent": None},
        {"id": "wear/dress", "name": 'Dresses "long"', "parent": "wear"},
        {"id": "wear/hat", "name": "帽子", "parent": "wear"},
    ],
    "attributes": [{"name": "Color", "values": ["red", "blue/green"]}],
    "relevant": {"wear/dress": {"Color": ["red", "blue/green"]}},
}


def schema(name: str) -> jsonschema.Draft202012Validator:
    loaded = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(loaded)
    return jsonschema.Draft202012Validator(loaded)


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return Taxonomy.from_json(orjson.dumps(TAXONOMY), source="test")


@pytest.fixture
def assembler(taxonomy: Taxonomy) -> Assembler:
    categories, labels = LabelSpace(taxonomy.leaves), LabelSpace(taxonomy.label_ids())
    return Assembler("demo/1", taxonomy, categories, labels, np.array([0.5, 0.5], np.float32))


def emit(assembler, values, *, rows=(0, 1), scores=(0.75, 0.25), labels=(0, 1), claims=None, **at):
    records = [record(value, offset=offset, **at) for offset, value in enumerate(values)]
    products = [parse_event(value) for value in values]
    num = len(values)
    categories = CategoryScores(
        np.tile(np.array(rows, np.int64), (num, 1)), np.tile(np.array(scores, np.float32), (num, 1))
    )
    label_scores = LabelScores(
        np.arange(num + 1, dtype=np.int64) * len(labels),
        np.tile(np.array(labels, np.int64), num),
        np.full(num * len(labels), 0.7, np.float32),
    )
    results = assembler.assemble(
        records, products, categories, label_scores, claims or [None] * num
    )
    events = [(orjson.loads(r.categories), orjson.loads(r.attributes)) for r in results]
    for categories_event, attributes_event in events:
        schema("categories.v1").validate(categories_event)
        schema("attributes.v1").validate(attributes_event)
    return results, events


def test_a_products_events_say_what_was_found_and_where_it_came_from(assembler):
    value = product_event(version=3, locale="EN", claimed_category="wear")
    _, [(categories, attributes)] = emit(assembler, [value], topic="in", partition=4)
    assert categories == {
        "schema": "sortiment.categories.v1",
        "event_id": "categories:in:4:0",
        "product_id": "p1",
        "product_version": "3",
        "locale": "en",
        "release": "demo/1",
        "taxonomy_version": "2026-1",
        "input": {"topic": "in", "partition": 4, "offset": 0},
        "category": {
            "id": "wear/dress",
            "score": 0.75,
            "path": [
                {"id": "wear", "name": "Wear"},
                {"id": "wear/dress", "name": 'Dresses "long"'},
            ],
        },
        "status": "assigned",
        "top": [{"id": "wear/dress", "score": 0.75}, {"id": "wear/hat", "score": 0.25}],
        "claimed": {"id": "wear", "agrees": True},
    }
    assert attributes["event_id"] == "attributes:in:4:0"
    assert attributes["category"] == {"id": "wear/dress", "score": 0.75, "status": "assigned"}
    assert attributes["category_source"] == "predicted"
    assert [(a["attribute"], a["value"], a["score"]) for a in attributes["attributes"]] == [
        ("Color", "red", 0.7),
        ("Color", "blue/green", 0.7),
    ]
    assert len({a["label_id"] for a in attributes["attributes"]}) == 2


@pytest.mark.parametrize(
    ("claim", "agrees"), [("wear/dress", True), ("wear/hat", False), ("no/such", None)]
)
def test_a_claim_is_compared_with_the_category(assembler, claim, agrees):
    _, [(categories, _)] = emit(assembler, [product_event(claimed_category=claim)])
    assert categories["claimed"] == {"id": claim, "agrees": agrees}


def test_a_score_below_its_threshold_is_left_to_review(assembler):
    [result], [(categories, attributes)] = emit(assembler, [product_event()], scores=(0.4999, 0.1))
    assert categories["status"] == attributes["category"]["status"] == "review"
    assert result.review


def test_a_score_at_its_threshold_is_assigned(assembler):
    _, [(categories, _)] = emit(assembler, [product_event()], scores=(0.5, 0.1))
    assert categories["status"] == "assigned"


def test_the_claimed_category_as_the_source(assembler):
    value = product_event(claimed_category="wear/dress")
    _, [(_, attributes)] = emit(assembler, [value], claims=["wear/dress"])
    assert attributes["category_source"] == "claimed"
    assert attributes["category"] == {"id": "wear/dress", "score": None, "status": "claimed"}


def test_no_attribute_above_its_threshold_is_still_an_event(assembler):
    _, [(_, attributes)] = emit(assembler, [product_event()], labels=())
    assert attributes["attributes"] == []


def test_a_release_without_category_model_emits_attributes_alone(taxonomy):
    assembler = Assembler("a/1", taxonomy, None, LabelSpace(taxonomy.label_ids()), None)
    value = product_event(claimed_category="wear/dress")
    scores = LabelScores(np.array([0, 1]), np.array([1]), np.array([0.9], np.float32))
    [result] = assembler.assemble(
        [record(value)], [parse_event(value)], None, scores, ["wear/dress"]
    )
    assert result.categories is None
    schema("attributes.v1").validate(orjson.loads(result.attributes))


@pytest.mark.parametrize(
    "hostile",
    ['"},"x":{"', "\\", "\u2028\u0000\u001f", "💥" * 20, "%s{0}", "</script>", "'"],
)
def test_hostile_ids_cannot_break_out_of_their_strings(assembler, hostile):
    value = product_event(product_id=hostile, version=hostile, claimed_category=hostile)
    _, [(categories, attributes)] = emit(assembler, [value])
    assert categories["product_id"] == attributes["product_id"] == hostile
    assert categories["product_version"] == hostile
    assert categories["claimed"]["id"] == hostile


def test_outputs_keep_the_key_and_a_null_key_gets_the_products_id(assembler):
    results, _ = emit(assembler, [product_event()], key=b"\xff\x00")
    assert results[0].key == b"\xff\x00"
    results, _ = emit(assembler, [product_event(product_id="ü")], key=None)
    assert results[0].key == "ü".encode()


@pytest.mark.parametrize("score", [1e-7, 1.0, 0.0, 0.1234567891, 3.3e-5])
def test_scores_are_json_numbers_of_six_digits(assembler, score):
    _, [(categories, _)] = emit(assembler, [product_event()], scores=(score, 0.0))
    assert categories["category"]["score"] == pytest.approx(score, abs=5.1e-7)


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{"])
def test_dead_letters_headers_follow_their_schema(value):
    sent = (("trace", b"1"), ("reason", b"mine"), ("large", b"y" * 40_000))
    letter = dead_letter(record(value, headers=sent), "invalid_json", "x\ud800" * 2_000, "demo/1")
    headers = {name: text.decode() for name, text in letter.headers}
    assert (headers["original-trace"], headers["headers-left-out"]) == ("1", "1")
    schema("dead-letter.v1").validate(headers)
    assert letter.value == value
    assert (headers.get("tombstone") == "true") == (value is None)


def test_the_product_schema_takes_what_the_worker_takes():
    check = schema("product.v1")
    check.validate(json.loads(product_event(version=1, bullets=["a"], images=None)))
    assert not check.is_valid({"product_id": [], "title": "x"})
    assert not check.is_valid({"product_id": "x"})
