"""Does to the system what the plan says, one thing after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.swaps.versions import announcement
from tests.chaos.feed import Feed
from tests.chaos.members import Journal, WorkerMember
from tests.polling import until_blocking
from tests.soak.plan import Kind
from tests.streams import Place
from worker.announcement import role_key
from worker.local.errors import LocalServiceError
from worker.local.kafka_cluster import KafkaCluster
from worker.local.redis import LocalRedis
from worker.topics_config import TopicsConfig

__all__ = ["Faults", "announce"]

_BURST = 200
_BURST_S = 0.5
_SWAP_S = 120.0
_ANNOUNCE_S = 60.0


def announce(servers: str, topic: str, release: Path) -> str:
    """Write a release to the control topic; returns its id.

    Raises:
        LocalServiceError: the broker does not take it.
    """
    said = announcement(release)
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "log_level": 2})
    producer.produce(topic, said.to_json(), key=role_key("active"))
    if producer.flush(_ANNOUNCE_S):
        raise LocalServiceError(f"{topic} does not take the announcement of {said.release}")
    return said.release


class Faults:
    """What may be done, and how often it was.

    Args:
        victim: the worker that may be hit.
        fleet: all of them.
        versions: of the release; the first is announced already.
    """

    def __init__(
        self,
        cluster: KafkaCluster,
        redis: LocalRedis,
        topics: TopicsConfig,
        victim: WorkerMember,
        fleet: Sequence[WorkerMember],
        versions: Sequence[Path],
        products: Sequence[dict[str, Any]],
        journal: Journal,
    ) -> None:
        self.done: Counter[Kind] = Counter()
        self.sent: dict[Place, bool] = {}
        self._cluster = cluster
        self._brokers = cycle(cluster.brokers)
        self._redis = redis
        self._topics = topics
        self._victim = victim
        self._fleet = fleet
        self._versions = iter(versions[1:])
        self._products = products
        self._journal = journal
        self._ways: dict[Kind, Callable[[], None]] = {
            "sigterm": self._terminate,
            "kill9": self._kill,
            "redis": redis.restart,
            "broker": self._restart_broker,
            "swap": self._swap,
            "dead_letters": self._burst,
        }

    def do(self, kind: Kind) -> None:
        """Do it, and wait until all workers are ready again; what goes wrong is noted.

        Raises:
            LocalServiceError: a broker or Redis did not come back.
            RuntimeError: the broker did not take the burst.
        """
        self._journal.note(kind)
        self._ways[kind]()
        for member in self._fleet:
            member.wait_well()
        self._journal.note(f"{kind}: well")
        self.done[kind] += 1

    def _terminate(self) -> None:
        self._victim.terminate()
        self._victim.start()

    def _kill(self) -> None:
        self._victim.kill()
        self._victim.start()

    def _restart_broker(self) -> None:
        """One after the other, in order and by a kill in turn."""
        broker = next(self._brokers)
        if self.done["broker"] % 2:
            broker.kill()
        else:
            broker.terminate()
        broker.start()
        self._cluster.wait_whole()

    def _swap(self) -> None:
        wanted = announce(
            self._cluster.bootstrap_servers, self._topics.control, next(self._versions)
        )
        for member in self._fleet:
            try:
                until_blocking(partial(_serves_not, wanted, member), _SWAP_S, "a swap")
            except AssertionError as error:
                self._journal.odd(str(error))

    def _burst(self) -> None:
        """Events that are no products, at once."""
        servers = self._cluster.bootstrap_servers
        with Feed(
            servers,
            self._topics.input,
            self._products,
            num=_BURST,
            seconds=_BURST_S,
            ordered=True,
            bad_every=1,
        ) as feed:
            self.sent |= feed.result()


def _serves_not(wanted: str, member: WorkerMember) -> str | None:
    """What a worker serves instead of the wanted release."""
    try:
        active = member.process.status()["release"]["active"]
    except LocalServiceError:
        return f"{member.name} does not answer"
    serves = str(active["release"]) if active else None
    return None if serves == wanted else f"{member.name} serves {serves}, not {wanted}"
