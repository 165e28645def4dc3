"""Whether a broker answers: a metadata request, never a look at its log."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

__all__ = ["why_not_ready"]

_ANSWER_S = 1.0
# librdkafka reports every refused connection; here they are the normal case.
_silent = logging.getLogger("worker.local.kafka_ready")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def why_not_ready(bootstrap_servers: str, answer_s: float = _ANSWER_S) -> str | None:
    """None where a broker answers a metadata request with itself in it, else the reason."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=_silent)
    try:
        metadata = client.list_topics(timeout=answer_s)
    except KafkaException as error:
        return str(error.args[0])
    return None if metadata.brokers else "the answer names no broker"
