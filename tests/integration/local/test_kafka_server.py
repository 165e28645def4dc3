from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient

from tests.services import TopicReader, Topics
from worker.local.errors import LocalServiceError, ServiceMissing
from worker.local.kafka import LocalKafka, start_kafka
from worker.local.kafka_ready import why_not_ready
from worker.local.kafka_server import MAX_MESSAGE_BYTES
from worker.local.kafka_sources import kafka_version

# The largest input and the dead letter that it may become (worker.settings, worker.events).
DEAD_LETTER_BYTES = 1_048_576 + 64 * 1024


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[LocalKafka]:
    """A broker that may be stopped, even where the session's was given."""
    environ = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    with start_kafka(environ) as kafka:
        yield kafka


async def send(servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=servers, max_request_size=MAX_MESSAGE_BYTES
    ) as producer:
        await producer.send_and_wait(topic, value)


@pytest.mark.parametrize("bounce", ["restart", "kill"])
async def test_broker_comes_back_on_its_port_with_its_data(
    own_kafka: LocalKafka, bounce: str
) -> None:
    topic = Topics(own_kafka.bootstrap_servers)("kept", partitions=2)
    await send(own_kafka.bootstrap_servers, topic, b"before")

    if bounce == "restart":
        own_kafka.restart()
    else:
        own_kafka.kill()
        assert why_not_ready(own_kafka.bootstrap_servers) is not None
        own_kafka.start()

    await send(own_kafka.bootstrap_servers, topic, b"after")
    records = await TopicReader(own_kafka.bootstrap_servers)(topic, until=2)
    assert sorted(record.value or b"" for record in records) == [b"after", b"before"]


async def test_dead_letter_of_the_largest_input_fits_where_the_topic_allows_it(
    own_kafka: LocalKafka,
) -> None:
    limit = {"max.message.bytes": str(DEAD_LETTER_BYTES)}
    topic = Topics(own_kafka.bootstrap_servers)("dead", config=limit)
    await send(own_kafka.bootstrap_servers, topic, b"x" * (DEAD_LETTER_BYTES - 1024))
    (record,) = await TopicReader(own_kafka.bootstrap_servers)(topic)
    assert len(record.value or b"") == DEAD_LETTER_BYTES - 1024


async def test_topics_are_not_created_by_asking_for_them(own_kafka: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap_servers})
    assert admin.list_topics("asked-for", timeout=10).topics["asked-for"].error is not None
    assert "asked-for" not in admin.list_topics(timeout=10).topics


def test_java_of_the_wheel_runs_the_broker() -> None:
    home = os.environ["HOME"]
    with start_kafka({"HOME": home, "PATH": ""}, source="maven") as kafka:
        assert kafka.source == "maven"
        assert kafka.description.startswith(f"Apache Kafka {kafka_version()} on Java ")


def test_a_given_broker_is_used_and_left_alone(own_kafka: LocalKafka) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": own_kafka.bootstrap_servers}
    with start_kafka(environ) as given:
        assert (given.source, given.bootstrap_servers) == ("given", own_kafka.bootstrap_servers)
        with pytest.raises(LocalServiceError, match="was given and is not ours"):
            given.stop()
    assert why_not_ready(own_kafka.bootstrap_servers, 10.0) is None


def test_close_removes_everything() -> None:
    kafka = start_kafka({"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}, source="maven")
    assert kafka.log_path is not None and kafka.log_path.exists()
    kafka.close()
    kafka.close()
    assert not kafka.log_path.parent.exists()
    assert why_not_ready(kafka.bootstrap_servers) is not None


def test_no_source_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ServiceMissing, match=r"Maven.*Docker.*KAFKA_BOOTSTRAP_SERVERS"):
        start_kafka({"HOME": str(tmp_path), "PATH": ""})


@pytest.mark.parametrize(
    ("storage_status", "message"),
    [
        (0, r"(?s)status 3 before an answer.*kafka\.log.*no memory left"),
        (2, r"(?s)cannot format Kafka's storage.*kafka\.log.*no room left"),
    ],
    ids=["broker", "storage"],
)
def test_a_program_that_fails_is_reported_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_status: int, message: str
) -> None:
    # The log is kept.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "-version) echo 'openjdk version \"21.0.1\"' >&2 ;;\n"
        f"*StorageTool*) echo no room left; exit {storage_status} ;;\n"
        "*) echo no memory left; exit 3 ;;\n"
        "esac\n"
    )
    java.chmod(0o755)
    jars = tmp_path / f"kafka-{kafka_version()}"
    jars.mkdir()
    environ = {"JAVA_HOME": str(tmp_path), "SORTIMENT_CACHE": str(tmp_path), "PATH": "/bin"}
    with pytest.raises(LocalServiceError, match=message):
        start_kafka(environ, source="maven")
