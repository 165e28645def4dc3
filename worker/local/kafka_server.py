"""One Apache Kafka broker by itself, in a temporary folder."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from worker.local.java import Java
from worker.local.kafka_broker import KafkaBroker, KafkaRuntime
from worker.local.ports import ReservedPort

__all__ = ["MAX_MESSAGE_BYTES", "KafkaServer", "broker_settings"]

# The largest input (1 MiB) and the 64 KiB more of its dead letter, with room for topics that
# somebody allows larger ones on: the limit that matters is each topic's own.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024


def broker_settings(replication: int = 1) -> dict[str, str]:
    """What every local broker is told, whether Java or Docker runs it."""
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "8",
        "offsets.topic.replication.factor": str(replication),
        "transaction.state.log.num.partitions": "8",
        "transaction.state.log.replication.factor": str(replication),
        "transaction.state.log.min.isr": str(replication),
        "share.coordinator.state.topic.replication.factor": str(replication),
        "share.coordinator.state.topic.min.isr": str(replication),
        "default.replication.factor": str(replication),
        # A killed broker is let back in when its old session ends; 9 s by default.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        # A throw-away broker: small index files, nothing kept for long.
        "log.index.size.max.bytes": "1048576",
        "log.segment.bytes": "268435456",
    }


class KafkaServer(KafkaBroker):
    """A broker that is its own quorum, with its data in a folder that ``close`` removes.

    Args:
        jars: directory of Kafka's jars.
        java: the runtime.
        environ: environment of the processes.
        proxied: as ``KafkaBroker``.

    Raises:
        LocalServiceError: it did not start; with its log.
    """

    def __init__(
        self,
        jars: Path,
        java: Java,
        environ: Mapping[str, str],
        *,
        proxied: tuple[ReservedPort, str] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-kafka-"))
        self._broker_directory = self.directory / "broker"
        super().__init__(
            "Apache Kafka",
            1,
            KafkaRuntime(jars, java, ("-Xmx512m",), environ),
            self._broker_directory,
            self.directory / "kafka.log",
            self.directory,
            proxied=proxied,
        )
        try:
            self.format(secrets.token_urlsafe(16), [self.voter], broker_settings())
            self.start()
        except BaseException:
            self.close(keep_log=True)
            raise

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients; the same after a restart."""
        return self.address

    def stop(self) -> None:
        """Stop the broker in order; data and port stay for ``start``."""
        self.terminate()

    def close(self, *, keep_log: bool = False) -> None:
        """Stop the broker, let its ports go and remove its folder, the log perhaps excepted."""
        self.stop()
        super().close()
        shutil.rmtree(self._broker_directory if keep_log else self.directory, ignore_errors=True)
