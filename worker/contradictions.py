"""Settings that are each allowed and cannot go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import Settings

__all__ = ["Problem", "find_contradictions"]

_SASL_FIELDS = ("sasl_mechanism", "sasl_username", "sasl_password")
_FILE_FIELDS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
_TOPIC_FIELDS = (
    "input_topic",
    "backfill_topic",
    "categories_topic",
    "attributes_topic",
    "dead_letters_topic",
    "control_topic",
    "shadow_topic",
    "corrections_topic",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What cannot be.

    Attributes:
        fields: the settings at fault, the one to change first.
        allowed: what would be right.
    """

    fields: tuple[str, ...]
    allowed: str


def find_contradictions(settings: Settings) -> list[Problem]:
    """Every contradiction among the settings; reads no file, but looks whether files are there."""
    return [
        *_group(settings),
        *_delivery(settings),
        *_sasl(settings),
        *_tls(settings),
        *_embedded(settings),
        *_topics(settings),
        *_sizes(settings),
    ]


def _group(settings: Settings) -> Iterator[Problem]:
    if settings.heartbeat_interval_ms * 3 > settings.session_timeout_ms:
        yield Problem(
            ("heartbeat_interval_ms", "session_timeout_ms"),
            "a heartbeat interval of at most a third of the session timeout, "
            "so that two may be lost",
        )
    if settings.drain_timeout_s * 1000 > settings.session_timeout_ms:
        yield Problem(
            ("drain_timeout_s", "session_timeout_ms"),
            "a drain within the session timeout, or the group may hand the partitions on before "
            "the drain ends",
        )
    if settings.max_poll_interval_ms < settings.session_timeout_ms:
        yield Problem(
            ("max_poll_interval_ms", "session_timeout_ms"),
            "a poll interval of at least the session timeout",
        )


def _delivery(settings: Settings) -> Iterator[Problem]:
    if settings.delivery != "exactly_once" or settings.broker == "embedded":
        return
    if settings.transaction_interval_ms * 3 > settings.transaction_timeout_ms:
        yield Problem(
            ("transaction_interval_ms", "session_timeout_ms"),
            "an interval of at most a third of the session timeout, after which a transaction "
            "times out",
        )


def _sasl(settings: Settings) -> Iterator[Problem]:
    if settings.security_protocol.startswith("SASL"):
        for name in _SASL_FIELDS:
            if getattr(settings, name) is None:
                yield Problem(
                    (name, "security_protocol"), "mechanism, username and password, all three"
                )
    else:
        for name in _SASL_FIELDS:
            if getattr(settings, name) is not None:
                yield Problem(
                    (name, "security_protocol"),
                    "SASL settings only with security protocol SASL_PLAINTEXT or SASL_SSL",
                )


def _tls(settings: Settings) -> Iterator[Problem]:
    tls = settings.security_protocol.endswith("SSL")
    for name in _FILE_FIELDS:
        path = getattr(settings, name)
        if path is None:
            continue
        if not tls:
            yield Problem(
                (name, "security_protocol"),
                "TLS settings only with security protocol SSL or SASL_SSL",
            )
        elif not Path(path).is_file():
            yield Problem((name,), "a file that is there")
    if settings.ssl_certfile is None and settings.ssl_keyfile is not None:
        yield Problem(("ssl_certfile", "ssl_keyfile"), "a certificate for the key")
    if settings.ssl_keyfile is None and settings.ssl_certfile is not None:
        yield Problem(("ssl_keyfile", "ssl_certfile"), "the key of the certificate")


def _embedded(settings: Settings) -> Iterator[Problem]:
    if settings.broker != "embedded":
        return
    if settings.security_protocol != "PLAINTEXT":
        yield Problem(
            ("security_protocol", "broker"),
            "PLAINTEXT: the embedded broker has neither TLS nor SASL",
        )
    if settings.backfill_topic is not None:
        yield Problem(
            ("backfill_topic", "broker"),
            "unset: the embedded broker would lose past products that wait",
        )
    if settings.create_topics and "create_topics" in settings.model_fields_set:
        yield Problem(
            ("create_topics", "broker"), "false or unset: the embedded broker creates no topics"
        )
    if settings.delivery == "exactly_once" and "delivery" in settings.model_fields_set:
        yield Problem(
            ("delivery", "broker"),
            "at_least_once or unset: the embedded broker's transactions prove nothing",
        )


def _topics(settings: Settings) -> Iterator[Problem]:
    named: dict[str, str] = {}
    for name in _TOPIC_FIELDS:
        topic = getattr(settings, name)
        if topic is None:
            continue
        if topic in (".", ".."):
            yield Problem((name,), "a topic name other than . and ..")
        elif topic in named:
            yield Problem((name, named[topic]), "a topic of its own for each")
        else:
            named[topic] = name


def _sizes(settings: Settings) -> Iterator[Problem]:
    for name in ("max_batch_products", "max_poll_records", "backfill_poll_records"):
        if getattr(settings, name) > settings.max_in_flight_products:
            yield Problem(
                ("max_in_flight_products", name),
                f"at least {name}, or polling pauses before one is full",
            )
