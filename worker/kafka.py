"""How every Kafka client of the worker connects: address, TLS, SASL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.errors import ConfigError
from worker.hostile_records import install as read_hostile_records

__all__ = ["Broker", "KafkaConfig", "SaslMechanism", "SecurityProtocol"]

Broker = Literal["kafka", "embedded"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# Every consumer is made with a config from here: none is to die of what a seller has written.
read_hostile_records()


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaConfig:
    """Address and credentials of the brokers. Its ``repr`` holds no secret.

    Attributes:
        bootstrap_servers: ``host:port``, several separated by commas.
        broker: ``kafka``, or ``embedded``: librdkafka's mock cluster, which creates and describes
            no topics and always has four partitions.
        ssl_cafile: authorities to trust, PEM; None: the system's.
        ssl_certfile: client certificate (chain), PEM.
        ssl_keyfile: its private key, PEM, not encrypted.
        ssl_check_hostname: whether the broker's certificate must name the host connected to.
    """

    bootstrap_servers: str
    broker: Broker = "kafka"
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether clients authenticate by SASL."""
        return self.security_protocol.startswith("SASL")

    def client_kwargs(self) -> dict[str, Any]:
        """Arguments common to aiokafka's consumer, producer and admin client.

        Raises:
            ConfigError: a certificate or key file that cannot be loaded.
        """
        kwargs: dict[str, Any] = {
            "bootstrap_servers": [s.strip() for s in self.bootstrap_servers.split(",")],
            "security_protocol": self.security_protocol,
        }
        if self.tls:
            kwargs["ssl_context"] = self._ssl_context()
        if self.sasl:
            kwargs["sasl_mechanism"] = self.sasl_mechanism
            kwargs["sasl_plain_username"] = self.sasl_username
            kwargs["sasl_plain_password"] = self.sasl_password
        return kwargs

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                [
                    f"SORTIMENT_SSL_CAFILE: cannot load {self.ssl_cafile}: {error}; "
                    "give a PEM file of certificates"
                ]
            ) from error
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile:
            try:
                # An encrypted key must be an error, not a question on the terminal.
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password=lambda: "")
            except (ssl.SSLError, OSError, ValueError) as error:
                raise ConfigError(
                    [
                        f"SORTIMENT_SSL_CERTFILE and SORTIMENT_SSL_KEYFILE: cannot load "
                        f"{self.ssl_certfile} with {self.ssl_keyfile}: {error}; give a PEM "
                        "certificate and its unencrypted PEM key"
                    ]
                ) from error
        return context
