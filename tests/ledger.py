"""Inputs against outputs, event by event: nothing lost, nothing extra, everything in its place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
from aiokafka.partitioner import murmur2

from models.taxonomy import Taxonomy
from tests.services import Record, TopicReader, WorkerTopics
from tests.streams import Inputs, Place

__all__ = ["Ledger", "Outputs", "audit", "by_place", "headers_of"]

_SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"


@cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(orjson.loads((_SCHEMAS / f"{name}.json").read_bytes()))


@dataclass(frozen=True)
class Outputs:
    """The output topics, whole, each in partition and offset order."""

    categories: list[Record]
    attributes: list[Record]
    dead_letters: list[Record]

    @classmethod
    async def read(cls, read_all: TopicReader, names: WorkerTopics) -> Outputs:
        """What a reader of committed events sees now: let the group catch up before."""
        return cls(
            await read_all(names.categories_topic, read_committed=True),
            await read_all(names.attributes_topic, read_committed=True),
            await read_all(names.dead_letters_topic, read_committed=True),
        )


@dataclass(frozen=True)
class Repeats:
    """Places whose outputs came more than once, and how often more, by output."""

    categories: Counter[Place]
    attributes: Counter[Place]
    dead_letters: Counter[Place]

    @property
    def places(self) -> set[Place]:
        """All of them."""
        return {*self.categories, *self.attributes, *self.dead_letters}


def audit(
    inputs: Inputs,
    outputs: Outputs,
    taxonomy: Taxonomy,
    *,
    releases: Collection[str] = ("noop/1",),
    dead: Mapping[Place, str] | None = None,
    partitions: int = 12,
    schemas: bool = False,
) -> Repeats:
    """Every input has its two results or its one dead letter, and nothing else is there.

    Each output's key, partition, provenance and content are compared with its input, and that
    the first occurrences of a key's outputs come in the order of its inputs.

    Args:
        releases: those that may have answered.
        dead: reason of each input that must be a dead letter.
        partitions: of each output topic.
        schemas: validate each against docs/schemas (slow: for some thousands).

    Returns:
        What came more than once.

    Raises:
        AssertionError: naming the first that is wrong.
    """
    dead = dead or {}
    living = {place: event for place, event in inputs.events.items() if place not in dead}
    relevant = {
        category: set(taxonomy.relevant_label_ids(category)) for category in taxonomy.categories
    }
    for record in outputs.categories:
        event = _checked(record, "categories", inputs, partitions, schemas)
        category = event["category"]
        path = [{"id": node.id, "name": node.name} for node in taxonomy.path(category["id"])]
        assert category["path"] == path
        assert category["id"] in taxonomy.leaves
        assert event["top"][0] == {"id": category["id"], "score": category["score"]}
        assert event["release"] in releases
        assert event["taxonomy_version"] == taxonomy.version
    for record in outputs.attributes:
        event = _checked(record, "attributes", inputs, partitions, schemas)
        found = {label["label_id"] for label in event["attributes"]}
        assert found <= relevant[event["category"]["id"]]
        assert event["release"] in releases
        assert event["taxonomy_version"] == taxonomy.version
    for record in outputs.dead_letters:
        _check_dead_letter(record, inputs, dead, partitions)
    return Repeats(
        _repeats(outputs.categories, living, "categories"),
        _repeats(outputs.attributes, living, "attributes"),
        _repeats(outputs.dead_letters, dead, "dead letters"),
    )


@dataclass(frozen=True)
class Ledger:
    """What was sent to a worker, and what it made of it."""

    inputs: Inputs
    taxonomy: Taxonomy
    names: WorkerTopics
    read_all: TopicReader

    async def read(self) -> Outputs:
        """All three output topics as they are now."""
        return await Outputs.read(self.read_all, self.names)

    async def audit(self, **options: Any) -> Repeats:
        """``audit`` of what is there now."""
        return self.check(await self.read(), **options)

    def check(self, outputs: Outputs, **options: Any) -> Repeats:
        """``audit`` of outputs that were read before."""
        return audit(self.inputs, outputs, self.taxonomy, **options)


def headers_of(record: Record) -> dict[str, str]:
    """A dead letter's headers as text; none comes twice."""
    headers = {name: value.decode() for name, value in record.headers}
    assert len(headers) == len(record.headers)
    return headers


def by_place(records: Iterable[Record]) -> dict[Place, dict[str, Any]]:
    """Output events by the place of the input that each is of."""
    events = (orjson.loads(record.value) for record in records)
    return {(event["input"]["partition"], event["input"]["offset"]): event for event in events}


def _place(record: Record) -> Place:
    if record.headers:
        headers = headers_of(record)
        return int(headers["input-partition"]), int(headers["input-offset"])
    origin = orjson.loads(record.value)["input"]
    return origin["partition"], origin["offset"]


def _checked(
    record: Record, kind: str, inputs: Inputs, partitions: int, schemas: bool
) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(record.value)
    if schemas:
        _schema(f"{kind}.v1").validate(event)
    partition, offset = place = _place(record)
    assert place in inputs.events, f"{kind}: {place} was never sent"
    key, value = inputs.events[place]
    raw = orjson.loads(value or b"")
    assert event["schema"] == f"sortiment.{kind}.v1"
    assert event["event_id"] == f"{kind}:{inputs.topic}:{partition}:{offset}"
    assert event["input"]["topic"] == inputs.topic
    assert event["product_id"] == str(raw["product_id"])
    assert event["product_version"] == raw.get("version")
    assert event["locale"] == (raw.get("locale") or "")
    assert record.key == (str(raw["product_id"]).encode() if key is None else key)
    assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % partitions
    assert not record.headers
    return event


def _check_dead_letter(
    record: Record, inputs: Inputs, dead: Mapping[Place, str], partitions: int
) -> None:
    headers = headers_of(record)
    _schema("dead-letter.v1").validate(headers)
    partition, offset = place = _place(record)
    assert place in dead, f"dead letter of {place}: {headers['reason']}: {headers['detail']}"
    key, value = inputs.events[place]
    assert (record.key, record.value) == (key, value)
    assert headers["reason"] == dead[place], headers["detail"]
    assert headers["input-topic"] == inputs.topic
    assert headers["event-id"] == f"dead-letter:{inputs.topic}:{partition}:{offset}"
    if key is not None:
        assert record.partition == (murmur2(key) & 0x7FFFFFFF) % partitions


def _repeats(records: Sequence[Record], wanted: Iterable[Place], kind: str) -> Counter[Place]:
    wanted = set(wanted)
    counts = Counter(map(_place, records))
    lost = wanted - set(counts)
    assert not lost, f"{len(lost)} of {len(wanted)} lost in {kind}, first {min(lost)}"
    extra = set(counts) - wanted
    assert not extra, f"{len(extra)} extra in {kind}, first {min(extra)}"
    first_seen: defaultdict[bytes | None, dict[Place, None]] = defaultdict(dict)
    for record in records:
        first_seen[record.key].setdefault(_place(record))
    for key, places in first_seen.items():
        if key is not None:  # without a key there is no order to keep
            _check_order(list(places), f"{kind} of key {key!r}")
    return Counter({place: count - 1 for place, count in counts.items() if count > 1})


def _check_order(places: list[Place], what: str) -> None:
    by_partition: defaultdict[int, list[int]] = defaultdict(list)
    for partition, offset in places:
        by_partition[partition].append(offset)
    for partition, offsets in by_partition.items():
        assert offsets == sorted(offsets), f"{what}: not in the order of partition {partition}"
