"""Three brokers, Redis and two workers, products at a steady rate, faults, and what came of it.

Not one broker: when the only replica of everything restarts, Apache Kafka 4.3 takes partitions that
have no leader at that moment for deleted ones and skips the commit markers of transactions that it
has acknowledged ("likely deleted already and hence can be skipped"): results come twice then.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.feed import Feed
from tests.chaos.members import Journal, WorkerMember, workers
from tests.chaos.reader import Follower, read_to_end
from tests.chaos.verdict import Verdict
from tests.soak.faults import Faults, announce
from tests.soak.plan import Fault, Kind
from tests.soak.samples import Sample, Sampler, write_samples
from tests.soak.verdict import Finding, by_tenth, judge
from worker.kafka import KafkaConfig
from worker.local.errors import LocalServiceError
from worker.local.kafka_cluster import start_cluster
from worker.local.redis import start_redis
from worker.topics import ensure_topics
from worker.topics_config import TopicsConfig

__all__ = ["NUM_WORKERS", "PARTITIONS", "Bench", "Result", "soak"]

NUM_WORKERS = 2
PARTITIONS = 12
_SETTINGS = {
    "group_id": "soak",
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 2_000,
    "drain_timeout_s": 8,
    "torch_threads": 1,
}
_SILENCE_S = 60.0
_FEED_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a soak runs on.

    Attributes:
        versions: of the release: one more than the plan has swaps.
        products: what is sent, again and again under new ids.
        rate: events a second.
    """

    versions: Sequence[Path]
    products: Sequence[dict[str, Any]]
    faults: Sequence[Fault]
    seconds: float
    rate: float
    logs: Path
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a soak.

    Attributes:
        findings: of the worker that is never hit.
        memory: its median memory in each tenth of the run, MiB.
        oddities: what is no fault of results or figures, and yet should not be.
    """

    brokers: str
    events: int
    verdict: Verdict
    faults: Counter[Kind]
    findings: list[Finding]
    memory: list[float]
    samples: list[Sample]
    oddities: list[str]
    details: list[str]

    @property
    def is_kept(self) -> bool:
        """Whether nothing is wrong with the outputs and nothing grew."""
        return self.verdict.is_clean and all(finding.is_kept for finding in self.findings)


def soak(bench: Bench) -> Result:
    """Run it to its end.

    Raises:
        LocalServiceError: a broker or Redis did not start or come back, a worker did not start, or
            the one that is never hit ended.
        RuntimeError: the events could not be written.
        KafkaException, TimeoutError: the outputs could not be read.
    """
    # Ours, never a given one: it is restarted.
    environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    journal = Journal(bench.logs / "faults.log")
    with (
        start_cluster(environ, logs=bench.logs, say=bench.say) as cluster,
        start_redis(environ) as redis,
    ):
        servers = cluster.bootstrap_servers
        topics = TopicsConfig(partitions=PARTITIONS, replication_factor=len(cluster.brokers))
        bench.say(f"{cluster.description}; Redis from {redis.source}")
        asyncio.run(ensure_topics(KafkaConfig(bootstrap_servers=servers), topics))
        announce(servers, topics.control, bench.versions[0])
        settings = _SETTINGS | {
            "bootstrap_servers": servers,
            "redis_url": redis.url,
            "replication_factor": topics.replication_factor,
        }
        with (
            workers(NUM_WORKERS, settings, bench.logs, journal) as fleet,
            Follower(servers, topics) as follower,
            Sampler(fleet, _ports(servers), _ports(redis.url.removesuffix("/0"))) as sampler,
            Feed(
                servers,
                topics.input,
                bench.products,
                num=int(bench.rate * bench.seconds),
                seconds=bench.seconds,
                ordered=True,
            ) as feed,
        ):
            started_s = time.monotonic()
            survivor, victim = fleet
            faults = Faults(
                cluster, redis, topics, victim, fleet, bench.versions, bench.products, journal
            )
            for fault in bench.faults:
                _wait(feed, started_s + fault.at_s, survivor, victim)
                if feed.is_done:
                    break
                bench.say(f"{time.monotonic() - started_s:6.0f} s: {fault.kind}")
                faults.do(fault.kind)
            while not feed.is_done:
                _wait(feed, time.monotonic() + _FEED_S, survivor, victim)
            seconds = time.monotonic() - started_s
            sent = feed.result() | faults.sent
            follower.finish(sent, _SILENCE_S)
            if missing := follower.ledger.lacks(sent):
                for member in fleet:
                    member.write_status()
                journal.odd(f"nothing came any more; missing: {len(missing)}")
            samples = list(sampler.samples)
            for member in fleet:
                member.terminate()
        write_samples(samples, bench.logs / "samples.csv")
        afterwards = read_to_end(servers, topics)
    verdict = follower.ledger.verdict(sent) | afterwards.verdict(sent)
    if misjudged := afterwards.misjudged(sent):
        journal.odd(f"{misjudged} products became dead letters, or other events results")
    wrong = verdict.lost | verdict.twice | verdict.out_of_order | verdict.strange
    lasting = [sample for sample in samples if sample.worker == survivor.name]
    return Result(
        brokers=cluster.description,
        events=len(sent),
        verdict=verdict,
        faults=faults.done,
        findings=judge(lasting, seconds, PARTITIONS // NUM_WORKERS),
        memory=by_tenth(lasting, seconds),
        samples=samples,
        oddities=journal.oddities,
        details=[afterwards.describe(place) for place in sorted(wrong)[:10]],
    )


def _wait(feed: Feed, until_s: float, survivor: WorkerMember, victim: WorkerMember) -> None:
    """Until it is time or the feed is done; the victim is started again should it end by itself."""
    while not feed.is_done and (left_s := until_s - time.monotonic()) > 0:
        feed.wait(min(left_s, _FEED_S))
        victim.mend()
        if survivor.has_ended:
            raise LocalServiceError(
                f"{survivor.name} ended by itself\n{survivor.process.child.log_tail()}"
            )


def _ports(addresses: str) -> frozenset[int]:
    return frozenset(int(address.rpartition(":")[2]) for address in addresses.split(","))
