"""Announcements on a real control topic: served, swapped, refused, withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from models.release import Release
from tests.control_reader import Control
from worker.announce import publish, verify
from worker.announcement import Announcement, role_key
from worker.errors import ReleaseError
from worker.kafka import KafkaConfig
from worker.serving import InferenceConfig
from worker.topics_config import TopicsConfig


async def test_the_last_announcement_is_served(
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
    release: Callable[[str], Release], tmp_path: Path
) -> None:
    made = release("1")
    config = InferenceConfig(device="cpu", release_cache=tmp_path / "cache")
    assert verify(str(made.directory), config).id == "noop/1"

    (made.directory / "thresholds.json").write_text("{}")

    with pytest.raises(ReleaseError, match=r"thresholds\.json"):
        verify(str(made.directory), config)


async def test_a_release_with_two_roles_is_loaded_once(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    made = release("1")
    await publish(made, str(made.directory), config, names)
    await publish(made, str(made.directory), config, names, role="canary", share=0.1)
    reader = control()
    reader.hold_up(made.directory)
    await reader.service.start()
    await reader.held_up(made.directory)
    await reader.until(
        lambda: reader.service.status()["canary"]["note"].startswith("loading the release")
    )
    reader.let_go(made.directory)
    await reader.until(lambda: bool(reader.taken["active"] and reader.taken["canary"]))
    ((active, _),), ((canary, share),) = reader.taken["active"], reader.taken["canary"]
    assert canary is active
    assert share == 0.1


async def test_a_load_that_hangs_holds_up_no_newer_announcement(
    config: KafkaConfig,
    names: TopicsConfig,
    control: Callable[..., Control],
    release: Callable[[str], Release],
) -> None:
    first, second = release("1"), release("2")
    await publish(first, str(first.directory), config, names)
    reader = control()
    reader.hold_up(first.directory)
    await reader.service.start()
    await reader.held_up(first.directory)
    await publish(second, str(second.directory), config, names)
    await reader.until(lambda: bool(reader.served))
    assert [serving.release.id for serving in reader.served] == ["noop/2"]
    reader.let_go(first.directory)
