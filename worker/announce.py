"""Announces a release: verified here first, then written to the control topic."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from models.loading import load_predictor, run_self_check
from models.release import Release, fetch_release, read_release
from worker.errors import BrokerError
from worker.kafka import KafkaConfig
from worker.releases import ACTIVE_RELEASE_KEY, Announcement
from worker.serving import InferenceConfig
from worker.topics import TopicsConfig, ensure_control_topic

__all__ = ["publish", "verify"]


def verify(address: str, config: InferenceConfig) -> Release:
    """Fetch a release, check its digests, load its models and run its self-check examples.

    Raises:
        ReleaseError, ModelError, TaxonomyError: the release is refused; the message says why.
    """
    release = read_release(fetch_release(address, config.release_cache))
    run_self_check(release, load_predictor(release, config.torch_device(), config.dtype))
    return release


async def publish(
    release: Release, address: str, kafka: KafkaConfig, topics: TopicsConfig
) -> Announcement:
    """Write a verified release to the control topic, which is created if it is missing.

    Args:
        address: where workers find the release. A local path is made absolute.

    Returns:
        What was written, acknowledged by all replicas.

    Raises:
        BrokerError: no broker answered, or it refused.
        ConfigError: the control topic is of the wrong kind.
    """
    announcement = Announcement(
        release=release.id,
        address=_absolute(address),
        manifest_sha256=release.manifest_sha256,
        announced_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    await ensure_control_topic(kafka, topics)
    producer = AIOKafkaProducer(acks="all", **kafka.client_kwargs())
    try:
        await producer.start()
        await producer.send_and_wait(topics.control, announcement.to_json(), key=ACTIVE_RELEASE_KEY)
    except KafkaError as error:
        raise BrokerError(
            f"announcing {release.id} on topic {topics.control} at {kafka.bootstrap_servers}: "
            f"{error!r}"
        ) from error
    finally:
        await producer.stop()
    return announcement


def _absolute(address: str) -> str:
    return address if "://" in address else str(Path(address).resolve())
