"""Three brokers, of which any one may fail: what was acknowledged stays, and writing goes on."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from tests.polling import until
from tests.services import TopicReader
from worker.local.errors import LocalServiceError
from worker.local.kafka_cluster import KafkaBroker, KafkaCluster, start_cluster
from worker.local.kafka_ready import why_not_ready

TOPIC = "kept"


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with start_cluster(os.environ) as running:
        admin = AdminClient({"bootstrap.servers": running.bootstrap_servers, "log_level": 2})
        new = NewTopic(TOPIC, 6, replication_factor=3)
        admin.create_topics([new], operation_timeout=30)[TOPIC].result(30)
        running.wait_whole()
        yield running


async def send(servers: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True) as producer:
        await asyncio.gather(
            *[await producer.send(TOPIC, value, partition=number) for number in range(6)]
        )


async def values(servers: str) -> list[bytes | None]:
    return [record.value for record in await TopicReader(servers)(TOPIC)]


async def led_by_others(servers: str, broker: KafkaBroker) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})

    def why_not() -> str | None:
        partitions = admin.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions.values()
        led = [partition.id for partition in partitions if partition.leader == broker.number]
        return f"{broker.number} leads {led}" if led else None

    await until(why_not, 60, "led by others")


async def test_writes_need_two_of_three_replicas(cluster: KafkaCluster) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["min.insync.replicas"].value == "2"
    assert config["unclean.leader.election.enable"].value == "false"
    for topic in admin.list_topics(timeout=30).topics.values():
        assert all(len(partition.replicas) == 3 for partition in topic.partitions.values())


@pytest.mark.parametrize(("fault", "number"), [("kill", 1), ("terminate", 2), ("freeze", 3)])
async def test_a_broker_goes_and_comes_back(cluster: KafkaCluster, fault: str, number: int) -> None:
    before = await values(cluster.bootstrap_servers)
    await send(cluster.bootstrap_servers, f"before {fault}".encode())
    broker = cluster.brokers[number - 1]
    others = ",".join(other.address for other in cluster.brokers if other is not broker)

    await asyncio.to_thread(getattr(broker, fault))
    if fault == "freeze":
        assert broker.is_running
    else:
        assert not broker.is_running
        assert cluster.why_not_whole() == f"broker {number} does not run"
        assert why_not_ready(broker.address) is not None
    await led_by_others(others, broker)
    await send(others, f"during {fault}".encode())

    if fault == "freeze":
        broker.thaw()
    else:
        await asyncio.to_thread(broker.start)
    await asyncio.to_thread(cluster.wait_whole)
    sent = [f"{when} {fault}".encode() for when in ("before", "during") for _ in range(6)]
    assert Counter(await values(cluster.bootstrap_servers)) == Counter([*before, *sent])


async def test_not_whole_in_time_is_said(cluster: KafkaCluster) -> None:
    await asyncio.to_thread(cluster.brokers[0].terminate)
    with pytest.raises(LocalServiceError, match=r"not whole after 0 s: broker 1 does not run"):
        cluster.wait_whole(0)
    await asyncio.to_thread(cluster.brokers[0].start)
    await asyncio.to_thread(cluster.wait_whole)


def test_close_leaves_nothing_but_the_logs_asked_for(tmp_path: Path) -> None:
    cluster = start_cluster(os.environ, logs=tmp_path)
    cluster.brokers[1].freeze()
    cluster.close()
    cluster.close()
    assert not cluster.directory.exists()
    assert not any(broker.is_running for broker in cluster.brokers)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"broker-{number}.log" for number in (1, 2, 3)
    ]
