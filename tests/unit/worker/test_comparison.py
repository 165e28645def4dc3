"""Two releases' answers to one product."""

from __future__ import annotations

import orjson

from tests.factories import record
from worker.comparison import compare
from worker.lanes import Result


def result(release: str, category: str | None, labels: list[str] | None) -> Result:
    return Result(
        record(topic="in", partition=2, offset=7),
        b"k",
        0,
        release,
        None if category is None else orjson.dumps({"category": {"id": category}}),
        None
        if labels is None
        else orjson.dumps({"attributes": [{"label_id": label} for label in labels]}),
    )


def test_both_are_counted_and_told_whole() -> None:
    found = compare(result("a/1", "boots", ["x", "y"]), result("s/2", "boots", ["y", "z", "w"]))

    assert (found.same_category, found.num_both) == (True, 1)
    assert (found.num_active_only, found.num_shadow_only) == (1, 2)
    event = orjson.loads(found.event)
    assert event["event_id"] == "shadow:in:2:7"
    assert event["input"] == {"topic": "in", "partition": 2, "offset": 7}
    assert (event["active_release"], event["shadow_release"]) == ("a/1", "s/2")
    assert event["labels"] == {"both": 1, "active_only": 1, "shadow_only": 2}
    assert event["shadow"]["categories"] == {"category": {"id": "boots"}}


def test_another_category_is_told() -> None:
    assert compare(result("a", "boots", []), result("s", "bags", [])).same_category is False


def test_a_model_that_one_lacks_is_not_compared() -> None:
    found = compare(result("a", "boots", None), result("s", None, ["x"]))
    assert found.same_category is None
    assert (found.num_both, found.num_active_only, found.num_shadow_only) == (None, None, None)
