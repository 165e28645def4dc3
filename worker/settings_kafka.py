"""The settings of Kafka: brokers, how to get in, the topics, the group."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings

from worker.kafka import Broker, KafkaConfig, SaslMechanism, SecurityProtocol

__all__ = ["KafkaSettings", "Name", "TopicName"]

TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._:-]{1,249}$")]


def _servers(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "@" in host:
            raise ValueError("must be host:port, several separated by commas")
    return value


class KafkaSettings(BaseSettings):
    """Where events come from and go to, and as whom."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        "localhost:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka's brokers, `host:port`, several separated by commas.",
    )
    broker: Broker = Field(
        "kafka",
        description="`embedded`: the in-process mock cluster of `make demo`; four partitions, one "
        "worker, topics neither created nor checked.",
    )
    security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", description="Whether clients encrypt (`..SSL`) and authenticate (`SASL_..`)."
    )
    sasl_mechanism: SaslMechanism | None = Field(None, description="How SASL authenticates.")
    sasl_username: str | None = Field(None, description="User of SASL.")
    sasl_password: SecretStr | None = Field(
        None, description="Password of SASL. Never printed; has no flag."
    )
    ssl_cafile: str | None = Field(
        None, description="Authorities to trust, PEM file. Unset: the system's."
    )
    ssl_certfile: str | None = Field(None, description="Client certificate, PEM file.")
    ssl_keyfile: str | None = Field(
        None, description="Key of the client certificate, PEM file, not encrypted."
    )
    ssl_check_hostname: bool = Field(
        True, description="Whether a broker's certificate must name the host connected to."
    )

    input_topic: TopicName = Field("products", description="Products come in here.")
    backfill_topic: TopicName | None = Field(
        None,
        description="Past products come in here: read only while no live one waits. Unset: none.",
    )
    categories_topic: TopicName = Field("product-categories", description="Categories go out here.")
    attributes_topic: TopicName = Field(
        "product-attributes", description="Attribute values go out here."
    )
    dead_letters_topic: TopicName = Field(
        "product-dead-letters", description="Events that cannot be processed go here, whole."
    )
    control_topic: TopicName = Field(
        "sortiment-control", description="Names the active release; one partition, compacted."
    )
    shadow_topic: TopicName = Field(
        "product-shadow",
        description="What a shadow release says beside the active one goes here; created when one "
        "is announced.",
    )
    corrections_topic: TopicName = Field(
        "product-corrections",
        description="True categories and attributes that people gave to products; read by "
        "`snapshot-corrections` alone.",
    )
    partitions: int = Field(
        12, ge=1, le=10_000, description="Partitions of the topics that the worker creates."
    )
    replication_factor: int = Field(
        1, ge=1, le=100, description="Replicas of the topics that the worker creates."
    )
    create_topics: bool = Field(
        True, description="Whether missing topics are created; `false`: they must be there."
    )

    group_id: Name = Field("sortiment", description="Consumer group that shares the input.")
    group_instance_id: Name | None = Field(
        None,
        description="Name of this worker within the group (static membership): a restart within "
        "the session timeout moves no partition. Different for each worker.",
    )
    session_timeout_ms: int = Field(
        30_000, ge=6_000, le=1_800_000, description="Silence after which the group drops a worker."
    )
    heartbeat_interval_ms: int = Field(
        3_000, ge=100, description="Time between heartbeats; at most a third of the session."
    )
    max_poll_interval_ms: int = Field(
        300_000, ge=1_000, description="Longest time between polls before the group drops a worker."
    )

    @property
    def transaction_timeout_ms(self) -> int:
        """How long a transaction may stay open: as long as a worker may be silent.

        At most what brokers allow unless told otherwise (``transaction.max.timeout.ms``).
        """
        return min(self.session_timeout_ms, 900_000)

    def kafka(self) -> KafkaConfig:
        """How Kafka clients connect."""
        return KafkaConfig(
            bootstrap_servers=self.bootstrap_servers,
            broker=self.broker,
            security_protocol=self.security_protocol,
            sasl_mechanism=self.sasl_mechanism,
            sasl_username=self.sasl_username,
            sasl_password=self.sasl_password.get_secret_value() if self.sasl_password else None,
            ssl_cafile=self.ssl_cafile,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            ssl_check_hostname=self.ssl_check_hostname,
        )
