"""The rows: what runs, and how its products per second are measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson
from confluent_kafka import Consumer

from benchmarks.contention import OtherLoad
from benchmarks.stream.inputs import PARTITIONS, Input, Topics
from worker.local.child import ChildProcess
from worker.local.errors import LocalServiceError
from worker.local.worker_process import WorkerProcess, without_settings
from worker.product_lines import ProductEvent

__all__ = ["ROWS", "Bench", "Row", "Sample"]

# A tenth more events first: loading, joining the group and first fetches are not measured.
_MAX_WARM_UP = 2_000
# A frozen process sends no heartbeat; the group drops it after 30 s.
_MAX_FROZEN_S = 20.0
# Asking costs the broker: at 10 ms it took a quarter of a core away from what is measured.
_POLL_S = 0.1
_FREEZE_S = 10.0
_OFFLINE_POLL_S = 0.2
_SILENT_S = 180.0
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What the rows run on.

    Attributes:
        events: the input of each row that reads one.
        releases: ``noop`` and ``model``.
        events_file: the model rows' events, a line each, for the offline row.
        directory: for logs.
    """

    bootstrap_servers: str
    redis_url: str
    topics: Topics
    events: Mapping[str, Sequence[ProductEvent]]
    releases: Mapping[str, Path]
    events_file: Path
    directory: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a row.

    Attributes:
        products_per_s: what it is about.
        other_cores: mean number of cores that processes of somebody else kept busy meanwhile.
    """

    products_per_s: float
    other_cores: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        settings: of the worker, by name, where they are not the default.
    """

    name: str
    description: str
    release: str
    measure: Callable[[Bench, Row], Sample]
    settings: Mapping[str, object] = field(default_factory=dict)


class _Running(Protocol):
    def stop(self) -> int: ...


def _worker(bench: Bench, row: Row) -> Sample:
    group, source, outputs = _fresh(bench, row)
    control = f"control-{group}"
    settings = {
        "bootstrap_servers": bench.bootstrap_servers,
        "redis_url": bench.redis_url,
        "group_id": group,
        "input_topic": source.topic,
        "categories_topic": outputs[0],
        "attributes_topic": outputs[1],
        "dead_letters_topic": f"dead-{group}",
        "control_topic": control,
        "release": bench.releases[row.release],
        "log_level": "warning",
    } | dict(row.settings)
    process = WorkerProcess(settings, directory=bench.directory, environ=os.environ, name=group)
    try:
        return _until_last_commit(bench, row, group, source, outputs, process.child, process)
    finally:
        bench.topics.remove([control, f"dead-{group}"])


def _faust(bench: Bench, row: Row) -> Sample:
    group, source, outputs = _fresh(bench, row)
    arguments = {
        "bootstrap-servers": bench.bootstrap_servers,
        "group": group,
        "input": source.topic,
        "categories": outputs[0],
        "attributes": outputs[1],
        "release": str(bench.releases[row.release]),
        "datadir": str(bench.directory / f"data-{group}"),
    }
    command = [sys.executable, "-m", f"benchmarks.stream.{row.name}"]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    child = ChildProcess(
        row.name,
        command,
        bench.directory / f"{group}.log",
        env=without_settings(os.environ),
        grace_s=_GRACE_S,
    )
    return _until_last_commit(bench, row, group, source, outputs, child, child)


def _offline(bench: Bench, row: Row) -> Sample:
    command = [sys.executable, "-m", "benchmarks.stream.offline"]
    command += ["--release", str(bench.releases[row.release]), "--events", str(bench.events_file)]
    out = bench.directory / f"offline-{uuid.uuid4().hex[:6]}.json"
    log = out.with_suffix(".log")
    env = without_settings(os.environ)
    with ChildProcess(row.name, command, log, env=env, out_path=out) as child:
        load = OtherLoad()
        other_cores = None
        # Asked while it runs: the time of a process that has ended is nobody's.
        while child.poll() is None:
            other_cores = load.cores()
            time.sleep(_OFFLINE_POLL_S)
        if child.poll() != 0:
            raise LocalServiceError(child.log_tail())
    result = orjson.loads(out.read_bytes())
    return Sample(result["products"] / result["seconds"], other_cores)


def _fresh(bench: Bench, row: Row) -> tuple[str, Input, list[str]]:
    group = f"{row.name}-{uuid.uuid4().hex[:8]}"
    outputs = bench.topics.make([f"categories-{row.name}", f"attributes-{row.name}"])
    return group, bench.topics.input(f"in-{row.name}"), outputs


def _until_last_commit(
    bench: Bench,
    row: Row,
    group: str,
    source: Input,
    outputs: Sequence[str],
    child: ChildProcess,
    running: _Running,
) -> Sample:
    """Products per second over the whole preloaded input; stops the process.

    The process is warmed up until it has nothing in hand, frozen while the input is loaded, and
    measured from its thaw to the last commit. A clock that starts at some commit would leave out
    the work in hand at that moment, which favours whoever holds more in flight.
    """
    events = bench.events[row.name]
    consumer = source.watcher(group)
    try:
        source.fill(events[: min(_MAX_WARM_UP, max(PARTITIONS, len(events) // 10))])
        _wait_for_commits(source, consumer, child)
        _freeze(child)
        try:
            frozen_s = time.perf_counter()
            source.fill(events)
            if time.perf_counter() - frozen_s > _MAX_FROZEN_S:
                raise LocalServiceError(f"{row.name}: loading {len(events)} events took too long")
        finally:
            started_s, load = time.perf_counter(), OtherLoad()
            child.send_signal(signal.SIGCONT)
        _wait_for_commits(source, consumer, child)
        seconds, other_cores = time.perf_counter() - started_s, load.cores()
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
    bench.topics.remove([source.topic, *outputs])
    return Sample(len(events) / seconds, other_cores)


def _wait_for_commits(source: Input, consumer: Consumer, child: ChildProcess) -> None:
    before, changed_s = 0, time.perf_counter()
    while (committed := source.committed(consumer)) < source.count:
        now_s = time.perf_counter()
        if committed != before:
            before, changed_s = committed, now_s
        if child.poll() is not None or now_s - changed_s > _SILENT_S:
            raise LocalServiceError(
                f"{child.name} stood still at {committed} of {source.count} products\n"
                f"{child.log_tail()}"
            )
        time.sleep(_POLL_S)


def _freeze(child: ChildProcess) -> None:
    child.send_signal(signal.SIGSTOP)
    state = ["ps", "-o", "state=", "-p", str(child.pid)]
    deadline_s = time.perf_counter() + _FREEZE_S
    while not subprocess.run(state, capture_output=True, text=True, check=True).stdout.startswith(
        "T"
    ):
        if time.perf_counter() > deadline_s:
            raise LocalServiceError(f"{child.name} cannot be frozen\n{child.log_tail()}")
        time.sleep(_POLL_S)


ROWS = (
    Row("worker_noop", "worker, exactly once, model and preparing skipped", "noop", _worker),
    Row(
        "worker_noop_at_least_once",
        "the same, at least once",
        "noop",
        _worker,
        {"delivery": "at_least_once"},
    ),
    Row("worker_model", "worker, trained model", "model", _worker),
    Row("offline_model", "that model alone, products in memory", "model", _offline),
    Row("faust_event", "plain Faust agent, that model event by event", "model", _faust),
    Row("faust_take", "plain Faust agent with take, no-op model", "noop", _faust),
)
