"""Writes to the control topic: announces a release, verified first; takes one back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from models.loading import load_predictor
from models.release import Release, read_release
from models.release_store import fetch_release
from models.self_check import run_self_check
from worker.announcement import RETURN_KEY, Announcement, CanaryReturn, Role, role_key
from worker.errors import BrokerError
from worker.kafka import KafkaConfig
from worker.serving import InferenceConfig
from worker.topics import ensure_control_topic, ensure_shadow_topic
from worker.topics_config import TopicsConfig

__all__ = ["publish", "retract", "tell_return", "verify"]


def verify(address: str, config: InferenceConfig) -> Release:
    """Fetch a release, check its digests, load its models and run its self-check examples.

    Raises:
        ReleaseError, ModelError, TaxonomyError: the release is refused; the message says why.
    """
    release = read_release(fetch_release(address, config.release_cache))
    run_self_check(release, load_predictor(release, config.torch_device(), config.dtype))
    return release


async def publish(
    release: Release,
    address: str,
    kafka: KafkaConfig,
    topics: TopicsConfig,
    *,
    role: Role = "active",
    share: float = 1.0,
) -> Announcement:
    """Write a verified release to the control topic, which is created if it is missing.

    Args:
        address: where workers find the release. A local path is made absolute.
        role: what it is to do; for a shadow its topic is created, too.
        share: of the products, for a canary or a shadow.

    Returns:
        What was written, acknowledged by all replicas.

    Raises:
        ValueError: a canary with a share of 1: nothing would be left to compare it with.
        BrokerError: no broker answered, or it refused.
        ConfigError: a topic is of the wrong kind, or may not be created.
    """
    if role == "canary" and share >= 1:
        raise ValueError(f"a canary's share must be below 1, got {share}")
    announcement = Announcement(
        release=release.id,
        address=_absolute(address),
        manifest_sha256=release.manifest_sha256,
        announced_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        share=share,
    )
    await ensure_control_topic(kafka, topics)
    if role == "shadow":
        await ensure_shadow_topic(kafka, topics)
    await _write(kafka, topics.control, role_key(role), announcement.to_json())
    return announcement


async def retract(role: Role, kafka: KafkaConfig, topics: TopicsConfig) -> None:
    """Take back what is announced for a role.

    Raises:
        BrokerError: no broker answered, or it refused.
        ConfigError: the control topic is of the wrong kind.
    """
    await ensure_control_topic(kafka, topics)
    await _write(kafka, topics.control, role_key(role), None)


async def tell_return(ended: CanaryReturn, kafka: KafkaConfig, topic: str) -> None:
    """Tell every worker that a canary is given up.

    Raises:
        BrokerError: no broker answered, or it refused.
    """
    await _write(kafka, topic, RETURN_KEY, ended.to_json())


async def _write(kafka: KafkaConfig, topic: str, key: bytes, value: bytes | None) -> None:
    producer = AIOKafkaProducer(acks="all", **kafka.client_kwargs())
    try:
        await producer.start()
        await producer.send_and_wait(topic, value, key=key)
    except KafkaError as error:
        raise BrokerError(
            f"writing {key.decode()} to topic {topic} at {kafka.bootstrap_servers}: {error!r}"
        ) from error
    finally:
        await producer.stop()


def _absolute(address: str) -> str:
    return address if "://" in address else str(Path(address).resolve())
