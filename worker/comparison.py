"""What a shadow release says of a product beside what the active one said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from worker.events import event_id
from worker.lanes import Result

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one product.

    Attributes:
        same_category: whether both put the same category first; None where one has no category
            model.
        num_both, num_active_only, num_shadow_only: attribute values emitted, by label id; None
            where one has no attribute model.
        event: for the shadow topic, JSON.
    """

    same_category: bool | None
    num_both: int | None
    num_active_only: int | None
    num_shadow_only: int | None
    event: bytes


def compare(active: Result, shadow: Result) -> Comparison:
    """Compare two releases' results for the same input event."""
    said: list[dict[str, Any] | None] = [
        None if encoded is None else orjson.loads(encoded)
        for encoded in (active.categories, shadow.categories, active.attributes, shadow.attributes)
    ]
    active_category, shadow_category, active_attributes, shadow_attributes = said
    same = None
    if active_category is not None and shadow_category is not None:
        same = active_category["category"]["id"] == shadow_category["category"]["id"]
    counts: tuple[int | None, int | None, int | None] = (None, None, None)
    if active_attributes is not None and shadow_attributes is not None:
        ours, theirs = _labels(active_attributes), _labels(shadow_attributes)
        counts = len(ours & theirs), len(ours - theirs), len(theirs - ours)
    record = active.record
    event = {
        "schema": "sortiment.shadow.v1",
        "event_id": event_id("shadow", record.topic, record.partition, record.offset),
        "input": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
        },
        "active_release": active.release,
        "shadow_release": shadow.release,
        "same_category": same,
        "labels": {"both": counts[0], "active_only": counts[1], "shadow_only": counts[2]},
        "active": {"categories": active_category, "attributes": active_attributes},
        "shadow": {"categories": shadow_category, "attributes": shadow_attributes},
    }
    return Comparison(same, *counts, orjson.dumps(event))


def _labels(attributes: dict[str, Any]) -> set[str]:
    return {each["label_id"] for each in attributes["attributes"]}
