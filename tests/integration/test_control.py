"""The control plane of a worker process: what it waits for, what makes it ready, what ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from models.release import Release
from tests.services import Topics
from worker.announce import publish
from worker.kafka import KafkaConfig
from worker.local.child import wait_until
from worker.local.errors import LocalServiceError
from worker.local.worker_process import WorkerProcess
from worker.topics_config import TopicsConfig


def _lacks(worker: WorkerProcess, reason: str) -> str | None:
    try:
        reasons = worker.status()["reasons"]
    except LocalServiceError as error:
        return str(error)
    return None if any(reason in said for said in reasons) else f"only {reasons}"


def test_a_worker_without_a_release_is_alive_and_says_what_it_waits_for(
    worker_process: Callable[..., WorkerProcess],
) -> None:
    worker = worker_process(ready=False)
    wait_until(worker.child, lambda: _lacks(worker, "no release is announced"), 60, "told")

    assert worker.status()["ready"] is False
    assert "sortiment_ready 0.0" in worker.metrics()
    worker.terminate()
    assert worker.wait(30) == 0


def test_an_announced_release_makes_it_ready(
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
    worker_process: Callable[..., WorkerProcess],
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
    worker_process: Callable[..., WorkerProcess],
    topics: Topics,
    release: Callable[[str], Release],
) -> None:
    there = topics("in", partitions=5)

    worker = worker_process(input_topic=there, partitions=3, release=release("1").directory)

    status = worker.status()
    assert len(status["hot_path"]["assigned"]) == 5
    assert any("5 partitions" in text for text in status["topics"]["differences"])
