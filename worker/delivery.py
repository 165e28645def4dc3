"""Delivery of runs: outputs and dead letters to Kafka with the offset, as one unit per run.

``Delivery`` is what intake and hot path know of it, ``Upstream`` what it knows of the intake.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiokafka import TopicPartition

from worker.events import DEAD_LETTER_HEADROOM_BYTES
from worker.lanes import DeadLetter, Lane, Outcome, Run
from worker.metrics import Metrics

__all__ = ["Compression", "Delivery", "DeliveryConfig", "DeliveryKind", "Upstream", "count_settled"]

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
DeliveryKind = Literal["exactly_once", "at_least_once"]

# Small enough that a partition's share of a flush goes in a few requests, large enough to compress.
_BATCH_BYTES = 512 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryConfig:
    """How outputs are sent.

    Attributes:
        compression: codec of the output batches. Snappy costs 2 µs a product where aiokafka's lz4
            (at level 9) costs 26, for a third more bytes.
        max_event_bytes: largest event of the input topic: dead letters may be that large and
            ``DEAD_LETTER_HEADROOM_BYTES`` more.
        request_timeout_ms: how long the producer itself tries before it is replaced.
    """

    compression: Compression = "snappy"
    max_event_bytes: int = 1_048_576
    request_timeout_ms: int = 15_000

    def producer_options(self) -> dict[str, Any]:
        """aiokafka's options for a producer of outputs, whichever the kind of delivery."""
        return {
            "client_id": "sortiment-worker",
            "compression_type": None if self.compression == "none" else self.compression,
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": self.max_event_bytes + DEAD_LETTER_HEADROOM_BYTES,
            "request_timeout_ms": self.request_timeout_ms,
        }


class Upstream(Protocol):
    """Where runs come from: what delivery asks of the intake."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets as a member of the group."""
        ...

    async def committed(self, partition: TopicPartition) -> int | None:
        """The group's offset, as the broker has it now."""
        ...

    def settled(self, run: Run) -> None:
        """Learn that a run needs no further care."""
        ...

    def lost(self, lane: Lane, after_s: float) -> None:
        """Learn that a lane's results are dropped: its partition starts again from its offset.

        Args:
            after_s: how long to wait before that.
        """
        ...


class Delivery(Protocol):
    """Takes runs of open lanes; what it has settled is with the broker, offsets included."""

    async def start(self, upstream: Upstream) -> None:
        """Begin."""
        ...

    async def open_lane(self, lane: Lane) -> None:
        """Make ready for a lane, before its committed offset is read. May be called again."""
        ...

    async def close_lanes(self, lanes: Collection[Lane]) -> None:
        """End closed lanes, even half open ones: commit what is with the broker, drop the rest."""
        ...

    async def submit(self, runs: list[Run]) -> None:
        """Take runs for delivery; waits while too much is under way."""
        ...

    async def failed(self) -> None:
        """Wait for ever, or raise what delivery cannot recover from."""
        ...

    async def flush(self) -> None:
        """Wait until what was submitted is with the broker, or delivery has failed."""
        ...

    async def stop(self) -> None:
        """Commit what is with the broker, and end; also when it has failed or hangs."""
        ...

    def not_ready(self) -> list[str]:
        """Why nothing is delivered at present; empty when it is."""
        ...

    def status(self) -> dict[str, Any]:
        """Kind and state, as JSON takes them."""
        ...


def count_settled(metrics: Metrics, runs: Sequence[Run], started_s: float) -> None:
    """Count what runs have become; ``started_s``: when their sending began, monotonic."""
    metrics.stage_seconds.labels("send").observe(time.monotonic() - started_s)
    outcomes: list[Outcome] = [outcome for run in runs for outcome in run.outcomes]
    reasons = Counter(each.reason for each in outcomes if isinstance(each, DeadLetter))
    for reason, count in reasons.items():
        metrics.dead_letters.labels(reason).inc(count)
    results = [each for each in outcomes if not isinstance(each, DeadLetter)]
    metrics.results.inc(len(results))
    metrics.abstentions.inc(sum(result.review for result in results))
    metrics.labels.inc(sum(result.num_labels for result in results))
    oldest: dict[str, int] = {}
    for run in runs:
        topic, first = run.lane.partition.topic, min(o.record.timestamp for o in run.outcomes)
        oldest[topic] = min(first, oldest.get(topic, first))
    for topic, timestamp in oldest.items():
        metrics.event_delay_seconds.labels(topic).set(max(0.0, time.time() - timestamp / 1000))
