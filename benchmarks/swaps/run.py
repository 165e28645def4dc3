"""One row: a worker under full load, its release swapped again and again, and what came out."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from confluent_kafka import Producer, TopicPartition
from numpy.typing import NDArray

from benchmarks.contention import OtherLoad
from benchmarks.stream.inputs import PARTITIONS, Input, Topics
from benchmarks.swaps.backlog import Backlog
from benchmarks.swaps.outputs import read_outputs
from benchmarks.swaps.probe import Memory, Probe
from benchmarks.swaps.verdict import (
    Gap,
    Swap,
    gaps_of_swaps,
    ordinary_gaps_ms,
    unlike_once,
    wrong_release,
)
from benchmarks.swaps.versions import announcement
from worker.announcement import role_key
from worker.kafka import KafkaConfig
from worker.local.errors import LocalServiceError
from worker.local.worker_process import WorkerProcess
from worker.product_lines import ProductEvent
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

__all__ = ["MAX_BEYOND_MS", "MAX_GROWTH", "ROWS", "Bench", "Result", "Row", "measure"]

# What the project promises of a swap.
MAX_BEYOND_MS = 500.0
MAX_GROWTH = 0.05
# The worker's defaults: max_in_flight_products, and max_poll_records that may go beyond it.
_MAX_IN_FLIGHT = 8_192 + 2_000
_SWAP_S = 120.0
_LOOK_S = 0.05
_SILENT_S = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        least: events that always wait.
        settings: of the worker, by name, where they are not the default.
    """

    name: str
    description: str
    release: str
    least: int
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the rows run on.

    Attributes:
        versions: of each kind of release (``noop``, ``model``), one more than swaps.
        load_s: time under load before the first swap, and after the last one.
        directory: for logs.
    """

    bootstrap_servers: str
    redis_url: str
    topics: Topics
    events: Sequence[ProductEvent]
    versions: Mapping[str, Sequence[Path]]
    load_s: float
    directory: Path
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row.

    Attributes:
        swap_s: from each announcement until the release was seen to be active.
        ordinary_ms: gaps between successive outputs while nothing was swapped.
        lost, twice: input events without, or with more than one, of either output.
        wrong_release: outputs of a release that was not active then.
        dead_letters: there must be none.
        smallest_backlog: fewest events that waited.
    """

    row: Row
    products: int
    products_per_s: float
    swap_s: list[float]
    ordinary_ms: NDArray[np.float64]
    gaps: list[Gap]
    lost: int
    twice: int
    wrong_release: int
    dead_letters: int
    rss_before: int
    rss_after: int
    rss_most: int
    memory: list[Memory]
    smallest_backlog: int
    other_cores: float | None

    @property
    def growth(self) -> float:
        """Of the memory, from before the first swap to after the last."""
        return self.rss_after / self.rss_before - 1

    @property
    def beyond_ms(self) -> float:
        """The longest gap around a swap without the batch that the model ran meanwhile."""
        return max(gap.beyond_ms for gap in self.gaps)

    def failures(self) -> list[str]:
        """Which promises were not kept."""
        found = [
            f"{count} {what}"
            for what, count in (
                ("products without a result", self.lost),
                ("products with more than one", self.twice),
                ("outputs of a release that was not active", self.wrong_release),
                ("dead letters", self.dead_letters),
            )
            if count
        ]
        if self.beyond_ms > MAX_BEYOND_MS:
            found.append(f"a gap of {self.beyond_ms:,.0f} ms beyond the batch in hand")
        if self.growth > MAX_GROWTH:
            found.append(f"memory grew by {self.growth:.1%}")
        if self.smallest_backlog <= 0:
            found.append("the backlog ran dry, so this was not full load")
        return found


ROWS = (
    Row("noop", "no-op model", "noop", 100_000),
    # A window of one batch: the next one's products have the next release.
    Row(
        "model",
        "trained model, a window of one batch",
        "model",
        1_000,
        {"max_poll_records": 32, "max_batch_tokens": 16_384},
    ),
    Row("model_windows", "trained model, windows of 2,000", "model", 4_000),
)


def measure(bench: Bench, row: Row) -> Result:
    """Run a row.

    Raises:
        LocalServiceError: the worker did not start, ended, stood still or refused a release.
        RuntimeError: Kafka took or gave something not.
    """
    name = f"swaps-{row.name}-{uuid.uuid4().hex[:8]}"
    topics = TopicsConfig(
        input=f"{name}-in",
        categories=f"{name}-categories",
        attributes=f"{name}-attributes",
        dead_letters=f"{name}-dead",
        control=f"{name}-control",
        partitions=PARTITIONS,
    )
    asyncio.run(ensure_topics(KafkaConfig(bootstrap_servers=bench.bootstrap_servers), topics))
    settings = {
        "bootstrap_servers": bench.bootstrap_servers,
        "redis_url": bench.redis_url,
        "group_id": name,
        "input_topic": topics.input,
        "categories_topic": topics.categories,
        "attributes_topic": topics.attributes,
        "dead_letters_topic": topics.dead_letters,
        "control_topic": topics.control,
        "log_level": "info",
    } | dict(row.settings)
    control = _Control(bench.bootstrap_servers, topics.control)
    versions = bench.versions[row.release]
    first = control.announce(versions[0])
    source = Input(bench.bootstrap_servers, topics.input)
    with WorkerProcess(
        settings, directory=bench.directory, environ=os.environ, name=name
    ) as worker:
        worker.wait_ready()
        ready_s = time.time()
        backlog = Backlog(source, name, bench.events, row.least)
        probe = Probe(worker)
        load = OtherLoad()
        try:
            started_s = time.time()
            backlog.start()
            _load(worker, bench.load_s)
            swaps = [Swap(0, started_s, started_s, ready_s)]
            for number, version in enumerate(versions[1:], start=1):
                swaps.append(_swap(worker, control, version, number))
                bench.say(f"{row.name}: swap {number} in {_took_s(swaps[-1]):.1f} s")
            _load(worker, bench.load_s)
            fed_s = time.time()
            products = backlog.finish()
            _drain(worker, backlog, products)
            ended_s, other_cores = time.time(), load.cores()
        finally:
            probe.close()
            backlog.close()
    numbers = {each.release: number for number, each in enumerate(map(announcement, versions))}
    assert first in numbers
    outputs = [
        read_outputs(bench.bootstrap_servers, topic, numbers)
        for topic in (topics.categories, topics.attributes)
    ]
    ends = _ends(source)
    unlike = [unlike_once(each, ends) for each in outputs]
    # Half of the time under load without swaps counts: memory and gaps have settled by then.
    steady_s = bench.load_s / 2
    steady = (swaps[1].announced_s - steady_s, swaps[1].announced_s), (fed_s - steady_s, fed_s)
    result = Result(
        row=row,
        products=products,
        products_per_s=products / (ended_s - started_s),
        swap_s=[_took_s(swap) for swap in swaps[1:]],
        ordinary_ms=ordinary_gaps_ms(outputs, steady),
        gaps=gaps_of_swaps(outputs, swaps[1:], probe.batches),
        lost=sum(lost for lost, _ in unlike),
        twice=sum(twice for _, twice in unlike),
        wrong_release=sum(wrong_release(each, swaps, _MAX_IN_FLIGHT) for each in outputs),
        dead_letters=bench.topics.count(topics.dead_letters),
        rss_before=_rss(probe.memory, *steady[0]),
        rss_after=_rss(probe.memory, *steady[1]),
        rss_most=max(look.rss_bytes for look in probe.memory),
        memory=probe.memory,
        smallest_backlog=backlog.smallest,
        other_cores=other_cores,
    )
    bench.topics.remove(topics.names)
    return result


class _Control:
    """Writes to a control topic."""

    def __init__(self, servers: str, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": servers, "acks": "all", "log_level": 2})
        self._topic = topic

    def announce(self, version: Path) -> str:
        """Announce a release; returns its id."""
        said = announcement(version)
        self._producer.produce(self._topic, said.to_json(), key=role_key("active"))
        if self._producer.flush(_SWAP_S):
            raise LocalServiceError(f"{self._topic} does not take the announcement")
        return said.release


def _swap(worker: WorkerProcess, control: _Control, version: Path, number: int) -> Swap:
    announced_s = unseen_s = time.time()
    wanted = control.announce(version)
    deadline_s = announced_s + _SWAP_S
    while True:
        asked_s = time.time()
        said = worker.status()["release"]
        if said["active"]["release"] == wanted:
            return Swap(number, announced_s, unseen_s, time.time())
        unseen_s = asked_s
        if asked_s > deadline_s:
            raise LocalServiceError(
                f"{wanted} is not active after {_SWAP_S:g} s: {said}\n{worker.child.log_tail()}"
            )
        _load(worker, _LOOK_S)


def _took_s(swap: Swap) -> float:
    return swap.seen_s - swap.announced_s


def _load(worker: WorkerProcess, seconds: float) -> None:
    time.sleep(seconds)
    if worker.child.poll() is not None:
        raise LocalServiceError(f"the worker ended by itself\n{worker.child.log_tail()}")


def _drain(worker: WorkerProcess, backlog: Backlog, products: int) -> None:
    before, changed_s = 0, time.monotonic()
    while (committed := backlog.committed()) < products:
        if committed != before:
            before, changed_s = committed, time.monotonic()
        if time.monotonic() - changed_s > _SILENT_S:
            raise LocalServiceError(
                f"the worker stood still at {committed} of {products} products\n"
                f"{worker.child.log_tail()}"
            )
        _load(worker, 10 * _LOOK_S)


def _ends(source: Input) -> dict[int, int]:
    consumer = source.watcher("benchmark-swaps")
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(source.topic, number))[1]
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()


def _rss(memory: Sequence[Memory], start_s: float, end_s: float) -> int:
    return int(
        statistics.median(look.rss_bytes for look in memory if start_s <= look.at_s <= end_s)
    )
