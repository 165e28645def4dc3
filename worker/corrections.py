"""The corrections topic as labelled products: of each product the last correction, as it stands.

A correction is a product with its true ``category`` and ``attributes``, as a line of a data set
has them (docs/schemas/correction.v1.json), keyed by the product's id. An event without a value
takes back what was said of its key.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import orjson

from models.errors import ProductError
from models.labelled import parse_labelled
from worker.hostile_records import fault_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]

__all__ = ["Corrections", "Refused"]

# Enough to see what sends them; the count tells of the rest.
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is no correction."""

    partition: int
    offset: int
    reason: str


@dataclass(slots=True)
class Corrections:
    """Corrections as they are read; only ids stay in memory.

    Attributes:
        events: all that were read. withdrawn: taken back by an event without a value, of those
            that were known. replaced: by a later one of the same product.
        num_refused: events that are no corrections; refused: the first 20.
    """

    events: int = 0
    withdrawn: int = 0
    replaced: int = 0
    num_refused: int = 0
    refused: list[Refused] = field(default_factory=list)
    _lines: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    # Where the line of each product starts, in the order of the lines.
    _places: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, record: Record) -> None:
        """Take the next event of its partition."""
        self.events += 1
        fault = fault_of(record)
        if fault is not None:
            self._refuse(record, f"a record that no client writes: {fault}")
        elif record.value is None:
            self._withdraw(record)
        else:
            self._put(record, record.value)

    def lines(self) -> Iterator[bytes]:
        """JSON lines, each with its line break, in the order in which they were read.

        A line is the correction as it was sent, with ``correction``: topic, partition, offset,
        timestamp_ms.
        """
        for start in self._places.values():
            self._lines.seek(start)
            yield self._lines.readline()

    def close(self) -> None:
        """Let the temporary file go."""
        self._lines.close()

    def _put(self, record: Record, value: bytes) -> None:
        try:
            raw: Any = orjson.loads(value)
            product_id = parse_labelled(raw).product.product_id
        except ProductError as error:
            self._refuse(record, str(error))
            return
        except orjson.JSONDecodeError as error:
            self._refuse(record, f"not JSON: {error}")
            return
        if record.key != product_id.encode():
            # The key decides its order against the product's other corrections.
            self._refuse(record, f"its key is not its product_id {product_id[:80]!r}")
            return
        raw["correction"] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp,
        }
        try:
            line = orjson.dumps(raw, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError as error:
            # What is read to a depth of 1,024 is written to one of 254 only.
            self._refuse(record, f"cannot be written again: {error}")
            return
        # Put at the end anew: lines stand in the order of what they hold.
        self.replaced += self._places.pop(product_id, None) is not None
        self._places[product_id] = self._lines.seek(0, 2)
        self._lines.write(line)

    def _withdraw(self, record: Record) -> None:
        if record.key is None:
            self._refuse(record, "neither key nor value")
            return
        try:
            product_id = record.key.decode()
        except UnicodeDecodeError:
            self._refuse(record, "its key is not UTF-8, as no product_id is")
            return
        self.withdrawn += self._places.pop(product_id, None) is not None

    def _refuse(self, record: Record, reason: str) -> None:
        self.num_refused += 1
        if len(self.refused) < _SHOWN:
            self.refused.append(Refused(record.partition, record.offset, reason))
