"""One cell: three workers on a cluster, products coming in, faults, and what came of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.chaos.cells import Cell
from tests.chaos.feed import Feed
from tests.chaos.members import BrokerMember, Journal, Member, WorkerMember, workers
from tests.chaos.reader import Follower, read_to_end
from tests.chaos.storm import Storm
from tests.chaos.verdict import Ledger, Verdict
from tests.streams import Place
from worker.kafka import KafkaConfig
from worker.local.kafka_cluster import KafkaCluster
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

__all__ = ["NUM_WORKERS", "PARTITIONS", "SESSION_MS", "Bench", "CellResult", "run_cell"]

NUM_WORKERS = 3
PARTITIONS = 12
# The shortest that brokers allow unless told otherwise (group.min.session.timeout.ms).
SESSION_MS = 6_000
# Little in hand at a time, so that a fault always meets a worker in the middle of something.
_SETTINGS = {
    "session_timeout_ms": SESSION_MS,
    "heartbeat_interval_ms": 1_000,
    "drain_timeout_s": 6,
    "max_poll_records": 200,
    "max_in_flight_products": 400,
    "max_batch_products": 64,
    "torch_threads": 1,
}
# No fault is left by then: a session, a transaction that times out and its cleaning, twice.
_SILENCE_S = 60.0
_ADMIN_S = 60.0
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What every cell runs on.

    Attributes:
        release: directory of the release that the workers serve.
        products: what is sent, again and again under new ids.
        logs: gets a folder for each cell.
        settings: of the workers, by name, beyond those of every cell.
        seconds: how long products come in, in each cell.
        least_faults: in each cell, however short it is.
    """

    cluster: KafkaCluster
    release: Path
    products: Sequence[dict[str, Any]]
    logs: Path
    settings: dict[str, object]
    seed: int
    seconds: float
    least_faults: int = 5


@dataclass(frozen=True, slots=True)
class CellResult:
    """What came of a cell.

    Attributes:
        oddities: what is no fault of the results, and yet should not be.
        details: where the outputs of the first wrong ones lie.
    """

    cell: Cell
    products: int
    verdict: Verdict
    faults: int
    seconds: float
    oddities: list[str]
    details: list[str]


def run_cell(bench: Bench, cell: Cell, num_products: int) -> CellResult:
    """Run a cell to its end; two readers are asked, one from its beginning and one after it.

    Raises:
        LocalServiceError: the cluster, or at first a worker, did not start or come back.
        RuntimeError: the products could not be written.
        KafkaException, TimeoutError: the outputs could not be read.
    """
    servers = bench.cluster.bootstrap_servers
    prefix = f"chaos-{uuid.uuid4().hex[:8]}"
    topics = TopicsConfig(
        input=f"{prefix}-input",
        categories=f"{prefix}-categories",
        attributes=f"{prefix}-attributes",
        dead_letters=f"{prefix}-dead-letters",
        control=f"{prefix}-control",
        partitions=PARTITIONS,
        replication_factor=len(bench.cluster.brokers),
    )
    logs = bench.logs / cell.name
    logs.mkdir()
    journal = Journal(logs / "faults.log")
    started_s = time.monotonic()
    asyncio.run(ensure_topics(KafkaConfig(bootstrap_servers=servers), topics))
    feed = Feed(
        servers,
        topics.input,
        bench.products,
        num=num_products,
        seconds=bench.seconds,
        ordered=cell.ordered,
    )
    settings = _SETTINGS | _names(servers, prefix, topics) | bench.settings
    with (
        workers(NUM_WORKERS, settings | {"release": bench.release}, logs, journal) as fleet,
        Follower(servers, topics) as follower,
        feed,
    ):
        bench.cluster.wait_whole()
        storm = _storm(bench, cell, fleet, journal)
        storm.rage(feed.wait, bench.least_faults, _mend)
        sent = feed.result()
        follower.finish(sent, _SILENCE_S)
        if missing := follower.ledger.lacks(sent):
            for member in fleet:
                member.write_status()
            held_up = sorted(Counter(partition for partition, _ in missing).items())
            journal.odd(f"nothing came any more; missing by input partition: {held_up}")
        for member in fleet:
            _mend(member)
            member.terminate()
    afterwards = read_to_end(servers, topics)
    verdict = follower.ledger.verdict(sent) | afterwards.verdict(sent)
    if misjudged := afterwards.misjudged(sent):
        journal.odd(f"{misjudged} products became dead letters, or other events results")
    details = _details(verdict, follower.ledger, afterwards)
    for line in details:
        journal.note(line)
    _remove(servers, topics)
    seconds = time.monotonic() - started_s
    return CellResult(
        cell, num_products, verdict, storm.num_faults, seconds, journal.oddities, details
    )


def _storm(bench: Bench, cell: Cell, fleet: Sequence[WorkerMember], journal: Journal) -> Storm:
    rng = Random(f"{bench.seed} {cell.name}")
    if cell.target == "worker":
        return Storm(cell.fault, fleet, NUM_WORKERS - 1, rng, journal)
    members = [BrokerMember(broker, bench.cluster) for broker in bench.cluster.brokers]
    return Storm(cell.fault, members, 1, rng, journal)


def _mend(member: Member) -> None:
    if isinstance(member, WorkerMember):
        member.mend()


def _names(servers: str, group_id: str, topics: TopicsConfig) -> dict[str, object]:
    return {
        "bootstrap_servers": servers,
        "group_id": group_id,
        "input_topic": topics.input,
        "categories_topic": topics.categories,
        "attributes_topic": topics.attributes,
        "dead_letters_topic": topics.dead_letters,
        "control_topic": topics.control,
        "partitions": topics.partitions,
        "replication_factor": topics.replication_factor,
    }


def _details(verdict: Verdict, during: Ledger, afterwards: Ledger) -> list[str]:
    kinds: dict[str, frozenset[Place]] = {
        "lost": verdict.lost,
        "twice": verdict.twice,
        "out of order": verdict.out_of_order,
        "never sent": verdict.strange,
    }
    lines = []
    for what, places in kinds.items():
        for place in sorted(places)[:_SHOWN]:
            first, second = during.describe(place), afterwards.describe(place)
            lines.append(f"{what}: {first}")
            if second != first:
                lines.append(f"{what}, for the reader who came afterwards: {second}")
    return lines


def _remove(servers: str, topics: TopicsConfig) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
    for removed in admin.delete_topics(list(topics.names), operation_timeout=_ADMIN_S).values():
        removed.result(_ADMIN_S)
