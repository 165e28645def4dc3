"""Corrections from Kafka into a file, a refresh with them, and the new release in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from tests.commands import command
from tests.ledger import Ledger
from tests.services import Topics
from tests.streams import Group, Inputs
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_shop import write_shop
from tests.trained_shop import shop_recipe, small_flagship
from training.recipe import LoopSettings
from training.refresh_cli import refresh_command
from training.run import run
from worker.local.worker_process import WorkerProcess

NUM_CORRECTIONS = 60


@pytest.fixture
def corrections_topic(topics: Topics) -> str:
    return topics("corrections", partitions=2)


@pytest.fixture
def settings(settings: dict[str, object], corrections_topic: str) -> dict[str, object]:
    return settings | {"corrections_topic": corrections_topic}


def correction(number: int) -> dict[str, Any]:
    return {
        "product_id": f"c{number}",
        "title": f"zeppelin airship {number}",
        "category": "home/lamp",
        "attributes": [{"name": "Color", "value": "red"}],
    }


async def send(producer: AIOKafkaProducer, topic: str, key: str, value: bytes | None) -> None:
    await producer.send_and_wait(topic, value, key=key.encode())


async def test_corrections_become_a_release_that_a_worker_serves(
    settings: dict[str, object],
    corrections_topic: str,
    producer: AIOKafkaProducer,
    worker_process: Callable[..., WorkerProcess],
    inputs: Inputs,
    group: Group,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    await send(producer, corrections_topic, "c0", orjson.dumps(correction(0) | {"category": "x"}))
    for number in range(NUM_CORRECTIONS + 1):
        await send(producer, corrections_topic, f"c{number}", orjson.dumps(correction(number)))
    await send(producer, corrections_topic, f"c{NUM_CORRECTIONS}", None)
    await send(producer, corrections_topic, "bad", b"{")

    snapshot = tmp_path / "snapshot" / "corrections.jsonl"
    said = await command(settings, tmp_path, "snapshot-corrections", str(snapshot))
    assert said.code == 0, said.err
    assert f"{NUM_CORRECTIONS} corrections of {NUM_CORRECTIONS + 4} events" in said.out
    assert "is no correction: not JSON" in said.err
    lines = [orjson.loads(line) for line in snapshot.read_bytes().splitlines()]
    assert {line["product_id"] for line in lines} == {f"c{n}" for n in range(NUM_CORRECTIONS)}
    assert {line["category"] for line in lines} == {"home/lamp"}
    held = orjson.loads((snapshot.parent / "corrections.jsonl.offsets.json").read_bytes())
    ends = {int(name): each["end_offset"] for name, each in held["partitions"].items()}
    assert sum(ends.values()) == held["events"] == NUM_CORRECTIONS + 4
    assert held["refused"] == held["withdrawn"] == held["replaced"] == 1
    for line in lines:
        assert line["correction"]["topic"] == corrections_topic
        assert line["correction"]["offset"] < ends[line["correction"]["partition"]]

    data = write_shop(tmp_path / "data")
    system = small_flagship(save_tiny_bert(tmp_path / "encoder"))
    first = shop_recipe(data, tmp_path, system, LoopSettings(epochs=6, batch_size=16))
    first = replace(first, out=tmp_path / "releases" / "1")
    run(first, lambda line: None)
    out = tmp_path / "releases" / "2"
    given = ["--release", first.out, "--data", data, "--new", snapshot, "--out", out]
    given += [f"cache={tmp_path / 'cache'}", "train.batch_size=16", "progress=false"]
    given += ["system.rates.heads=1e-2", "system.rates.bag=5e-2"]
    refreshed = CliRunner().invoke(refresh_command, list(map(str, given)))
    assert refreshed.exit_code == 0, refreshed.output

    worker = worker_process(release=out, dtype="float32", partitions=2)
    await inputs.send(
        (b"n%d" % number, orjson.dumps({"product_id": f"n{number}", "title": "zeppelin airship"}))
        for number in range(4)
    )
    await group.caught_up(worker)
    events = [orjson.loads(each.value or b"") for each in (await ledger.read()).categories]
    assert [event["release"] for event in events] == ["shop/2"] * 4
    assert [event["category"]["id"] for event in events] == ["home/lamp"] * 4


async def test_no_topic_no_file(settings: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "corrections.jsonl"
    given = settings | {"corrections_topic": "nowhere-at-all"}
    said = await command(given, tmp_path, "snapshot-corrections", str(out))
    assert said.code == 2
    assert "topic nowhere-at-all is missing" in said.err
    assert not out.exists()
