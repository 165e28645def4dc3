"""Records of the output topics become typed outputs; others are counted, never a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiokafka import ConsumerRecord

from worker.output_reader import (
    AttributesOutput,
    CategoriesOutput,
    DeadLetterOutput,
    Origin,
    UnreadableOutput,
    parse_output,
)
from worker.tolerant_parser import Fault
from worker.topics_config import TopicsConfig

TOPICS = TopicsConfig()
HEAD = {
    "product_id": "p",
    "product_version": None,
    "locale": "ja",
    "release": "demo/1",
    "taxonomy_version": "1",
    "input": {"topic": "products", "partition": 3, "offset": 9},
}
CATEGORIES = {
    "schema": "sortiment.categories.v1",
    **HEAD,
    "category": {"id": "a/b", "score": 0.5, "path": [{"id": "a", "name": "A"}]},
    "status": "review",
    "top": [],
    "claimed": {"id": "a", "agrees": True},
}
ATTRIBUTES = {
    "schema": "sortiment.attributes.v1",
    **HEAD,
    "attributes": [{"attribute": "Color", "value": "red", "label_id": "Color=red", "score": 1}],
}


def record(
    topic: str, value: bytes | None, headers: list[tuple[str, bytes]] | None = None
) -> ConsumerRecord[bytes | None, bytes | None]:
    fields: dict[str, Any] = {"topic": topic, "partition": 1, "offset": 5, "timestamp": 77}
    return ConsumerRecord(
        **fields,
        timestamp_type=1,
        key=b"p",
        value=value,
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=0,
        headers=headers or [],
    )


def test_categories() -> None:
    output = parse_output(record(TOPICS.categories, orjson.dumps(CATEGORIES)), TOPICS)
    origin = Origin("products", 3, 9)
    assert output == CategoriesOutput(
        origin, 77, "p", "ja", "demo/1", "a/b", 0.5, ("A",), "review", True
    )


def test_no_claim() -> None:
    value = orjson.dumps({**CATEGORIES, "claimed": None})
    output = parse_output(record(TOPICS.categories, value), TOPICS)
    assert isinstance(output, CategoriesOutput)
    assert output.agrees is None


def test_attributes() -> None:
    output = parse_output(record(TOPICS.attributes, orjson.dumps(ATTRIBUTES)), TOPICS)
    assert output == AttributesOutput(
        Origin("products", 3, 9), 77, "p", "ja", "demo/1", (("Color", "red"),), ("Color=red",)
    )


def test_dead_letter() -> None:
    headers = [
        ("reason", b"invalid_json"),
        ("detail", b"\xff"),
        ("input-topic", b"products"),
        ("input-partition", b"2"),
        ("input-offset", b"4"),
    ]
    output = parse_output(record(TOPICS.dead_letters, b"{", headers), TOPICS)
    assert output == DeadLetterOutput(Origin("products", 2, 4), 77, "invalid_json", "\ufffd")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"{}",
        orjson.dumps({**CATEGORIES, "input": []}),
        orjson.dumps({**CATEGORIES, "category": {"id": "x", "score": "high", "path": []}}),
        orjson.dumps({**CATEGORIES, "claimed": "x"}),
        orjson.dumps({**CATEGORIES, "claimed": {"category": "x", "agrees": []}}),
        orjson.dumps({**CATEGORIES, "claimed": {"category": "x", "agrees": 1}}),
        orjson.dumps({**ATTRIBUTES, "attributes": None}),
    ],
)
def test_other_records_are_unreadable(value: bytes | None) -> None:
    for topic in (TOPICS.categories, TOPICS.attributes, TOPICS.dead_letters):
        assert parse_output(record(topic, value), TOPICS) == UnreadableOutput(topic, 1, 5)


def test_a_record_that_no_client_wrote_is_unreadable() -> None:
    value = orjson.dumps(CATEGORIES)
    assert isinstance(parse_output(record(TOPICS.categories, value), TOPICS), CategoriesOutput)
    faulty = replace(record(TOPICS.categories, value), checksum=Fault("bad_record", "d"))
    assert parse_output(faulty, TOPICS) == UnreadableOutput(TOPICS.categories, 1, 5)
