"""The five rows: what runs, and how its products per second are measured."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson
from confluent_kafka import Consumer

from benchmarks.stream.inputs import Input, Topics
from worker.local.child import ChildProcess
from worker.local.errors import LocalServiceError
from worker.local.worker_process import WorkerProcess

__all__ = ["ROWS", "Bench", "Row"]

# Start-up (loading, joining the group, the first fetches) is over when so much is committed.
_WARM_SHARE = 0.1
_POLL_S = 0.01
_SILENT_S = 180.0
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What the rows run on.

    Attributes:
        inputs: the preloaded topic of each row that reads one.
        releases: ``noop`` and ``model``.
        events_file: the model rows' events, a line each, for the offline row.
        directory: for logs.
    """

    bootstrap_servers: str
    redis_url: str
    topics: Topics
    inputs: Mapping[str, Input]
    releases: Mapping[str, Path]
    events_file: Path
    directory: Path


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    description: str
    release: str
    measure: Callable[[Bench, Row], float]


class _Running(Protocol):
    def stop(self) -> int: ...


def _worker(bench: Bench, row: Row) -> float:
    group, outputs = _fresh(bench, row)
    control = f"control-{group}"
    settings = {
        "bootstrap_servers": bench.bootstrap_servers,
        "redis_url": bench.redis_url,
        "group_id": group,
        "input_topic": bench.inputs[row.name].topic,
        "categories_topic": outputs[0],
        "attributes_topic": outputs[1],
        "dead_letters_topic": f"dead-{group}",
        "control_topic": control,
        "release": bench.releases[row.release],
        "log_level": "warning",
    }
    process = WorkerProcess(settings, directory=bench.directory, environ=os.environ, name=group)
    try:
        return _until_last_commit(bench, row, group, outputs, process.child, process)
    finally:
        bench.topics.remove([control, f"dead-{group}"])


def _faust(bench: Bench, row: Row) -> float:
    group, outputs = _fresh(bench, row)
    arguments = {
        "bootstrap-servers": bench.bootstrap_servers,
        "group": group,
        "input": bench.inputs[row.name].topic,
        "categories": outputs[0],
        "attributes": outputs[1],
        "release": str(bench.releases[row.release]),
    }
    command = [sys.executable, "-m", f"benchmarks.stream.{row.name}"]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    child = ChildProcess(row.name, command, bench.directory / f"{group}.log", grace_s=_GRACE_S)
    return _until_last_commit(bench, row, group, outputs, child, child)


def _offline(bench: Bench, row: Row) -> float:
    command = [sys.executable, "-m", "benchmarks.stream.offline"]
    command += ["--release", str(bench.releases[row.release]), "--events", str(bench.events_file)]
    out = bench.directory / f"offline-{uuid.uuid4().hex[:6]}.json"
    log = out.with_suffix(".log")
    with ChildProcess(row.name, command, log, out_path=out) as child:
        if child.wait(3_600) != 0:
            raise LocalServiceError(child.log_tail())
    result = orjson.loads(out.read_bytes())
    return float(result["products"] / result["seconds"])


def _fresh(bench: Bench, row: Row) -> tuple[str, list[str]]:
    group = f"{row.name}-{uuid.uuid4().hex[:8]}"
    return group, bench.topics.make([f"categories-{row.name}", f"attributes-{row.name}"])


def _until_last_commit(
    bench: Bench,
    row: Row,
    group: str,
    outputs: Sequence[str],
    child: ChildProcess,
    running: _Running,
) -> float:
    """Products per second from the commit that ends start-up to the last one; stops the process."""
    source = bench.inputs[row.name]
    consumer = source.watcher(group)
    try:
        marks = _commits(source, consumer, child)
    finally:
        consumer.close()
        running.stop()
    for topic in outputs:
        came_out = bench.topics.count(topic)
        if came_out != source.count:
            raise LocalServiceError(
                f"{row.name}: {source.count} products went in, {came_out} came out on {topic}\n"
                f"{child.log_tail()}"
            )
    bench.topics.remove(outputs)
    (first_s, first), (last_s, last) = marks
    return (last - first) / (last_s - first_s)


def _commits(
    source: Input, consumer: Consumer, child: ChildProcess
) -> tuple[tuple[float, int], tuple[float, int]]:
    """When start-up was over and when the last commit came, with how much was committed then."""
    before, changed_s = 0, time.perf_counter()
    first: tuple[float, int] | None = None
    while True:
        committed, now_s = source.committed(consumer), time.perf_counter()
        if committed != before:
            before, changed_s = committed, now_s
            if first is None and committed >= _WARM_SHARE * source.count:
                first = now_s, committed
        if committed >= source.count:
            break
        if child.poll() is not None or now_s - changed_s > _SILENT_S:
            raise LocalServiceError(
                f"{child.name} stood still at {committed} of {source.count} products\n"
                f"{child.log_tail()}"
            )
        time.sleep(_POLL_S)
    if first is None or first[1] == committed:
        raise LocalServiceError(
            f"{child.name} committed all {source.count} products at once: too few to measure"
        )
    return first, (now_s, committed)


ROWS = (
    Row("worker_noop", "worker, model and preparing skipped", "noop", _worker),
    Row("worker_model", "worker, trained model", "model", _worker),
    Row("offline_model", "that model alone, products in memory", "model", _offline),
    Row("faust_event", "plain Faust agent, that model event by event", "model", _faust),
    Row("faust_take", "plain Faust agent with take, no-op model", "noop", _faust),
)
