"""The committed offset, asked of a broker that does not coordinate the group."""

from __future__ import annotations

import os

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.polling import until
from worker.group_offsets import committed_offset
from worker.local.kafka_cluster import start_cluster


async def test_a_broker_that_does_not_coordinate_is_not_believed() -> None:
    first, second = TopicPartition("x", 0), TopicPartition("x", 1)
    with start_cluster(os.environ) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
        for made in admin.create_topics([NewTopic("x", 2, 3)]).values():
            made.result()
        cluster.wait_whole()
        consumer = AIOKafkaConsumer(
            "x",
            bootstrap_servers=cluster.bootstrap_servers,
            group_id="group",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            await until(lambda: None if consumer.assignment() else "nothing", 60, "assigned")
            await consumer.commit({first: 7})
            coordinator = consumer._coordinator
            right = coordinator.coordinator_id
            for wrong in {1, 2, 3} - {right}:
                coordinator.coordinator_id = wrong
                assert await committed_offset(consumer, first) == 7
                assert coordinator.coordinator_id == right
            assert await committed_offset(consumer, second) is None
        finally:
            await consumer.stop()
