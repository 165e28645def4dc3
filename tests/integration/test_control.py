"""The control plane against a real Kafka: topics, announcements, start and stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from models.noop import noop_release
from models.release import Release
from models.taxonomy import Taxonomy
from tests.services import Topics, WorkerTopics
from worker.announce import publish, verify
from worker.announcement import Announcement, CanaryReturn, Role, role_key
from worker.errors import BrokerError, ConfigError, ReleaseError
from worker.kafka import KafkaConfig
from worker.local.child import wait_until
from worker.local.errors import LocalServiceError
from worker.local.kafka import LocalKafka
from worker.local.worker_process import WorkerProcess
from worker.masks import MaskCacheConfig
from worker.metrics import Metrics
from worker.releases import ReleaseControl
from worker.serving import InferenceConfig, Serving, ServingLoader
from worker.topics import TopicsConfig, ensure_topics

TAXONOMY = {
    "name": "tiny",
    "version": "1",
    "categories": [
        {"id": "a", "name": "A", "parent": None},
        {"id": "b", "name": "B", "parent": "a"},
        {"id": "c", "name": "C", "parent": "a"},
    ],
    "attributes": [{"name": "Color", "values": ["red", "blue"]}],
    "relevant": {"b": {"Color": ["red"]}},
}


@pytest.fixture
def config(kafka: LocalKafka) -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
def names(worker_topics: WorkerTopics) -> TopicsConfig:
    return TopicsConfig(
        input=worker_topics.input_topic,
        categories=worker_topics.categories_topic,
        attributes=worker_topics.attributes_topic,
        dead_letters=worker_topics.dead_letters_topic,
        control=worker_topics.control_topic,
        partitions=3,
    )


@pytest.fixture
def release(tmp_path: Path) -> Callable[[str], Release]:
    """``release("1")`` writes release noop/1."""
    taxonomy = Taxonomy.from_json(orjson.dumps(TAXONOMY), source="tiny.json")
    return lambda version: noop_release(tmp_path / f"noop-{version}", taxonomy, version=version)


async def configs(kafka: KafkaConfig, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**kafka.client_kwargs())
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


class TestTopics:
    async def test_two_workers_at_once_make_them_as_they_must_be(
        self, config: KafkaConfig, names: TopicsConfig
    ) -> None:
        first, second = await asyncio.gather(
            ensure_topics(config, names), ensure_topics(config, names)
        )

        assert first.partitions == second.partitions
        assert first.partitions == {name: 1 if name == names.control else 3 for name in names.names}
        assert first.max_event_bytes == second.max_event_bytes == 1_048_576
        assert (await configs(config, names.input))["max.message.bytes"] == "1048576"
        assert (await configs(config, names.control))["cleanup.policy"] == "compact"
        dead = await configs(config, names.dead_letters)
        assert dead["max.message.bytes"] == str(1_048_576 + 65_536)
        for output in (names.categories, names.attributes, names.dead_letters):
            settings = await configs(config, output)
            assert settings["message.timestamp.type"] == "LogAppendTime"

    async def test_another_number_of_partitions_is_said_and_used(
        self, config: KafkaConfig, names: TopicsConfig, topics: Topics
    ) -> None:
        there = topics("in", partitions=5, config={"max.message.bytes": "1048576"})

        facts = await ensure_topics(config, replace(names, input=there))

        assert facts.partitions[there] == 5
        (difference,) = facts.differences
        assert "5 partitions" in difference

    async def test_the_dead_letter_topic_follows_the_real_limit_of_the_input(
        self, config: KafkaConfig, names: TopicsConfig, topics: Topics
    ) -> None:
        there = topics("in", partitions=3, config={"max.message.bytes": "2000000"})

        facts = await ensure_topics(config, replace(names, input=there))

        assert facts.max_event_bytes == 2_000_000
        dead = await configs(config, names.dead_letters)
        assert dead["max.message.bytes"] == str(2_000_000 + 65_536)

    async def test_a_small_dead_letter_topic_stops_the_start(
        self, config: KafkaConfig, names: TopicsConfig, topics: Topics
    ) -> None:
        there = topics("dead", config={"max.message.bytes": "1048588"})

        with pytest.raises(ConfigError, match=r"max\.message\.bytes=1048588.*=1048576.*--alter"):
            await ensure_topics(config, replace(names, dead_letters=there))

    async def test_a_control_topic_that_forgets_stops_the_start(
        self, config: KafkaConfig, names: TopicsConfig, topics: Topics
    ) -> None:
        there = topics("control")

        with pytest.raises(ConfigError, match=r"cleanup\.policy=delete.*--alter"):
            await ensure_topics(config, replace(names, control=there))

    async def test_missing_topics_are_all_named_where_none_may_be_created(
        self, config: KafkaConfig, names: TopicsConfig
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            await ensure_topics(config, replace(names, create=False))

        assert len(caught.value.problems) == 5

    async def test_more_replicas_than_brokers_name_the_setting(
        self, config: KafkaConfig, names: TopicsConfig
    ) -> None:
        with pytest.raises(ConfigError, match="SORTIMENT_REPLICATION_FACTOR is 50"):
            await ensure_topics(config, replace(names, replication_factor=50))

    async def test_no_broker_is_said_with_its_address(self, names: TopicsConfig) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{closed.getsockname()[1]}"

            with pytest.raises(BrokerError, match=f"{address}.*KAFKA_BOOTSTRAP_SERVERS"):
                await ensure_topics(KafkaConfig(bootstrap_servers=address), names, wait_s=0)


class Control:
    """A reader of the control topic and what it has handed over."""

    def __init__(
        self, kafka: KafkaConfig, topic: str, cache: Path, pinned: str | None = None
    ) -> None:
        self.metrics = Metrics()
        self.served: list[Serving] = []
        config = InferenceConfig(device="cpu", torch_threads=1, release_cache=cache)
        loader = ServingLoader(config, MaskCacheConfig(), self.metrics)

        def take(role: Role, serving: Serving | None, share: float = 1.0) -> None:
            assert role == "active"
            assert serving is not None
            self.served.append(serving)

        async def tell(ended: CanaryReturn) -> None:
            raise AssertionError(f"no canary here: {ended}")

        self.service = ReleaseControl(kafka, topic, loader, take, tell, self.metrics, pinned=pinned)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110  a status page has no event to wait for
                await asyncio.sleep(0.02)

    @property
    def note(self) -> str:
        return str(self.service.status()["note"])

    @property
    def refusals(self) -> float:
        (metric,) = self.metrics.refused_releases.collect()
        return metric.samples[0].value


@pytest.fixture
async def control(
    config: KafkaConfig, names: TopicsConfig, tmp_path: Path
) -> AsyncIterator[Callable[..., Control]]:
    await ensure_topics(config, names)
    made: list[Control] = []

    def make(pinned: str | None = None) -> Control:
        made.append(Control(config, names.control, tmp_path / "cache", pinned))
        return made[-1]

    yield make
    for one in made:
        await one.service.stop()


class TestReleases:
    async def test_the_last_announcement_is_served(
        self,
        config: KafkaConfig,
        names: TopicsConfig,
        control: Callable[..., Control],
        release: Callable[[str], Release],
    ) -> None:
        for version in ("1", "2"):
            made = release(version)
            await publish(made, str(made.directory), config, names)
        reader = control()

        await reader.service.start()
        await reader.until(lambda: bool(reader.served))

        assert [serving.release.id for serving in reader.served] == ["noop/2"]
        assert reader.service.not_ready() == []
        assert reader.note == "serving"

    async def test_none_is_waited_for_and_a_newer_one_is_swapped_in(
        self,
        config: KafkaConfig,
        names: TopicsConfig,
        control: Callable[..., Control],
        release: Callable[[str], Release],
    ) -> None:
        reader = control()
        await reader.service.start()
        await reader.until(lambda: "no release is announced" in reader.note)
        assert "sortiment-worker announce" in reader.service.not_ready()[0]

        first, second = release("1"), release("2")
        for version, made in enumerate((first, second, first), start=1):
            await publish(made, str(made.directory), config, names)
            await reader.until(lambda version=version: len(reader.served) == version)

        # Rolled back: the last one is the first again.
        served = [serving.release.id for serving in reader.served]
        assert served == ["noop/1", "noop/2", "noop/1"]
        assert reader.service.status()["active"]["release"] == "noop/1"

    async def test_a_refused_one_leaves_the_old_one_running_and_says_why(
        self,
        config: KafkaConfig,
        names: TopicsConfig,
        control: Callable[..., Control],
        release: Callable[[str], Release],
    ) -> None:
        first, second, third = release("1"), release("2"), release("3")
        reader = control()
        await reader.service.start()
        await publish(first, str(first.directory), config, names)
        await reader.until(lambda: bool(reader.served))
        (second.directory / "taxonomy.json").write_bytes(b"{}")  # after its digest was announced
        await publish(second, str(second.directory), config, names)
        await reader.until(lambda: reader.refusals == 1)

        assert reader.service.not_ready() == []
        status = reader.service.status()
        assert status["active"]["release"] == "noop/1"
        assert status["announced"]["release"] == "noop/2"
        assert "taxonomy.json" in status["refused"][0]["reason"]
        assert status["note"].endswith("serving noop/1")

        await publish(third, str(third.directory), config, names)
        await reader.until(lambda: len(reader.served) == 2)
        assert reader.note == "serving"

    async def test_the_setting_overrules_the_topic(
        self,
        config: KafkaConfig,
        names: TopicsConfig,
        control: Callable[..., Control],
        release: Callable[[str], Release],
    ) -> None:
        first, second = release("1"), release("2")
        await publish(second, str(second.directory), config, names)
        reader = control(pinned=str(first.directory))

        await reader.service.start()
        await reader.until(lambda: "SORTIMENT_RELEASE overrules it" in reader.note)
        await reader.until(lambda: bool(reader.served))

        assert [serving.release.id for serving in reader.served] == ["noop/1"]

    async def test_what_is_wrong_is_refused_and_what_is_right_is_served_after_it(
        self,
        names: TopicsConfig,
        producer: AIOKafkaProducer,
        control: Callable[..., Control],
        release: Callable[[str], Release],
        tmp_path: Path,
    ) -> None:
        good = release("1")
        right = Announcement(
            release=good.id,
            address=str(good.directory),
            manifest_sha256=good.manifest_sha256,
            announced_at="2025-01-01T00:00:00+00:00",
        )
        reader = control()
        await reader.service.start()

        async def announce(value: bytes) -> None:
            await producer.send_and_wait(names.control, value, key=role_key("active"))

        await announce(b"{")
        await reader.until(lambda: reader.refusals == 1)
        assert "not JSON" in reader.service.status()["refused"][0]["reason"]
        await announce(replace(right, address=str(tmp_path / "nowhere")).to_json())
        await reader.until(lambda: reader.refusals == 2)
        assert "nowhere" in reader.service.not_ready()[0]
        await announce(replace(right, manifest_sha256="0" * 64).to_json())
        await reader.until(lambda: reader.refusals == 3)
        assert good.manifest_sha256 in reader.service.not_ready()[0]
        await producer.send_and_wait(names.control, b"whatever", key=b"another key")
        await announce(right.to_json())
        await reader.until(lambda: bool(reader.served))

        assert len(reader.service.status()["refused"]) == 3

    async def test_a_withdrawn_announcement_is_none(
        self,
        config: KafkaConfig,
        names: TopicsConfig,
        producer: AIOKafkaProducer,
        control: Callable[..., Control],
        release: Callable[[str], Release],
    ) -> None:
        made = release("1")
        await publish(made, str(made.directory), config, names)
        await producer.send_and_wait(names.control, None, key=role_key("active"))
        reader = control()

        await reader.service.start()
        await reader.until(lambda: "no release is announced" in reader.note)

        assert reader.served == []

    async def test_an_altered_release_is_not_announced(
        self, release: Callable[[str], Release], tmp_path: Path
    ) -> None:
        made = release("1")
        config = InferenceConfig(device="cpu", release_cache=tmp_path / "cache")
        assert verify(str(made.directory), config).id == "noop/1"

        (made.directory / "thresholds.json").write_text("{}")

        with pytest.raises(ReleaseError, match=r"thresholds\.json"):
            verify(str(made.directory), config)


def _lacks(worker: WorkerProcess, reason: str) -> str | None:
    try:
        reasons = worker.status()["reasons"]
    except LocalServiceError as error:
        return str(error)
    return None if any(reason in said for said in reasons) else f"only {reasons}"


class TestProcess:
    def test_a_worker_without_a_release_is_alive_and_says_what_it_waits_for(
        self, worker_process: Callable[..., WorkerProcess]
    ) -> None:
        worker = worker_process(ready=False)
        wait_until(worker.child, lambda: _lacks(worker, "no release is announced"), 60, "told")

        assert worker.status()["ready"] is False
        assert "sortiment_ready 0.0" in worker.metrics()
        worker.terminate()
        assert worker.wait(30) == 0

    def test_an_announced_release_makes_it_ready(
        self,
        worker_process: Callable[..., WorkerProcess],
        config: KafkaConfig,
        names: TopicsConfig,
        release: Callable[[str], Release],
    ) -> None:
        made = release("1")
        asyncio.run(publish(made, str(made.directory), config, names))

        worker = worker_process(partitions=3)

        status = worker.status()
        assert status["ready"] is True
        assert status["release"]["active"]["release"] == "noop/1"
        assert len(status["hot_path"]["assigned"]) == 3
        assert 'release="noop/1"' in worker.metrics()
        worker.terminate()
        assert worker.wait(30) == 0

    def test_a_taken_port_ends_it_at_once_and_is_named(
        self, worker_process: Callable[..., WorkerProcess]
    ) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]

            worker = worker_process(ready=False, web_port=port)

            assert worker.wait(60) == 2
        log = worker.log_path.read_text()
        assert f"SORTIMENT_WEB_PORT (--web-port): port {port} on 127.0.0.1 is taken" in log
        assert "Traceback" not in log

    def test_another_number_of_partitions_works(
        self,
        worker_process: Callable[..., WorkerProcess],
        topics: Topics,
        release: Callable[[str], Release],
    ) -> None:
        there = topics("in", partitions=5)

        worker = worker_process(input_topic=there, partitions=3, release=release("1").directory)

        status = worker.status()
        assert len(status["hot_path"]["assigned"]) == 5
        assert any("5 partitions" in text for text in status["topics"]["differences"])
