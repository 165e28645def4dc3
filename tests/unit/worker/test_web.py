"""What the web views tell, and the check of their port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from worker.errors import ConfigError
from worker.logs import RecentErrors
from worker.metrics import Metrics
from worker.settings import Settings, variable
from worker.topics import TopicFacts
from worker.web import WorkerState, check_port


class Service:
    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)

    def not_ready(self) -> list[str]:
        return self.reasons

    def status(self) -> dict[str, Any]:
        return {"reasons": self.reasons}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    return Settings(redis_url="redis://u:hunter2@h")


def state(settings: Settings, control: Service, hot_path: Service) -> WorkerState:
    facts = TopicFacts(partitions={"products": 5}, max_event_bytes=1000, differences=("less",))
    return WorkerState(settings, facts, control, hot_path, Metrics(), RecentErrors())


def test_a_worker_is_ready_when_all_its_services_are(settings: Settings) -> None:
    assert state(settings, Service(), Service()).not_ready() == []
    assert state(settings, Service("a"), Service("b", "c")).not_ready() == ["a", "b", "c"]


def test_the_status_is_json_and_holds_no_secret(settings: Settings) -> None:
    status = state(settings, Service("a"), Service()).status()

    assert b"hunter2" not in orjson.dumps(status)
    assert status["ready"] is False
    assert status["reasons"] == ["a"]
    assert status["topics"]["differences"] == ["less"]
    assert {"python", "sortiment", "torch"} <= set(status["versions"])
    assert status["settings"]["redis_url"] == "redis://***@h"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_named_with_its_setting(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"SORTIMENT_WEB_PORT .*port {taken} on 127.0.0.1"):
        check_port("127.0.0.1", taken)


def test_an_address_of_another_machine_is_named() -> None:
    # TEST-NET-1 of RFC 5737: no machine has it.
    with pytest.raises(ConfigError, match=r"SORTIMENT_WEB_HOST .*192\.0\.2\.1"):
        check_port("192.0.2.1", 6066)


def test_a_free_port_is_free_afterwards() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
