"""Kafka for demo, tests and benchmarks: a given one, else one that the project starts itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from worker.local.embedded import EmbeddedKafka
from worker.local.errors import LocalServiceError, ServiceMissing
from worker.local.java import find_java
from worker.local.kafka_docker import KafkaContainer
from worker.local.kafka_jars import kafka_jars
from worker.local.kafka_ready import why_not_ready
from worker.local.kafka_server import KafkaServer
from worker.local.kafka_sources import available_sources, kafka_version
from worker.local.service import LocalService, Startable

__all__ = ["KafkaSource", "LocalKafka", "start_kafka"]

KafkaSource = Literal["given", "maven", "docker", "embedded"]
_GIVEN_ANSWER_S = 15.0


class _Broker(Startable, Protocol):
    @property
    def bootstrap_servers(self) -> str: ...
    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalKafka(LocalService[_Broker]):
    """A Kafka that answers; it keeps its data while it is stopped, unless it is embedded.

    Attributes:
        bootstrap_servers: for clients.
        source: where it came from; ``given`` is never stopped.
        description: for people ("Apache Kafka 4.3.0 on Java 17").
    """

    bootstrap_servers: str
    source: KafkaSource
    description: str
    _variable = "KAFKA_BOOTSTRAP_SERVERS"

    def kill(self) -> None:
        """End the broker as a power cut would; ``start`` brings it back.

        Raises:
            LocalServiceError: a given broker is not ours to kill.
        """
        self._ours().kill()


def start_kafka(
    environ: Mapping[str, str],
    *,
    source: KafkaSource | None = None,
    allow_embedded: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> LocalKafka:
    """A Kafka that answers metadata requests, started if need be.

    Order: the broker that ``KAFKA_BOOTSTRAP_SERVERS`` names; Apache Kafka from Maven's jars; in
    Docker; embedded, where allowed. A source that turns out to be missing (nothing to fetch it
    from) gives way to the next; one that is there and fails is an error.

    Args:
        environ: the environment (``os.environ``): also PATH, HOME, JAVA_HOME, SORTIMENT_CACHE.
        source: only this one.
        allow_embedded: whether the mock cluster will do when nothing else is there.
        say: told, in a line each, what takes time or is passed over.

    Raises:
        ServiceMissing: none of them can be had here; says how to get one.
        LocalServiceError: one was there and did not start; with its log.
    """
    missing = []
    for candidate in (source,) if source else _candidates(environ, allow_embedded):
        try:
            return _start(candidate, environ, say)
        except ServiceMissing as error:
            missing.append(str(error))
            say(f"no Kafka from {candidate}: {error}")
    raise ServiceMissing("no Kafka could be had:\n" + "\n".join(f"- {why}" for why in missing))


def _candidates(environ: Mapping[str, str], allow_embedded: bool) -> tuple[KafkaSource, ...]:
    try:
        sources = available_sources(environ)
    except ServiceMissing:
        if not allow_embedded:
            raise
        return ("embedded",)
    return (*sources, "embedded") if allow_embedded and "given" not in sources else sources


def _start(
    source: KafkaSource, environ: Mapping[str, str], say: Callable[[str], None]
) -> LocalKafka:
    service: _Broker
    if source == "given":
        return _given(environ)
    if source == "maven":
        java = find_java(environ)
        service = KafkaServer(kafka_jars(environ, say), java, environ)
        description = f"Apache Kafka {kafka_version()} on Java {java.version}"
    elif source == "docker":
        service = KafkaContainer(environ, say)
        description = f"Apache Kafka {kafka_version()} in Docker"
    else:
        service = EmbeddedKafka()
        description = "embedded mock cluster (four partitions, at least once)"
    return LocalKafka(service, service.bootstrap_servers, source, description)


def _given(environ: Mapping[str, str]) -> LocalKafka:
    servers = environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    if not servers:
        raise ServiceMissing("KAFKA_BOOTSTRAP_SERVERS is not set")
    reason = why_not_ready(servers, _GIVEN_ANSWER_S)
    if reason is not None:
        raise LocalServiceError(
            f"the broker that KAFKA_BOOTSTRAP_SERVERS names does not answer: {servers} ({reason})"
        )
    return LocalKafka(None, servers, "given", f"the broker at {servers}")
