"""Settings: where they come from, what is refused, what is never printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.errors import ConfigError
from worker.settings import PREFIX, Settings, flag, variable
from worker.settings_loading import load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests, no ``.env`` of its working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.chdir(tmp_path)


def problems(**flags: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags)
    return caught.value.problems


def test_the_defaults_are_right_together() -> None:
    settings = load_settings()

    assert settings.bootstrap_servers == "localhost:9092"
    assert settings.partitions == 12


def test_variables_are_prefixed_but_for_the_two_that_others_use() -> None:
    unprefixed = {name for name in Settings.model_fields if not variable(name).startswith(PREFIX)}

    assert {variable(name) for name in unprefixed} == {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}


def test_a_flag_wins_over_the_environment_and_this_over_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(
        "KAFKA_BOOTSTRAP_SERVERS=file:1\nSORTIMENT_TOP_K=7\nSORTIMENT_PARTITIONS=7\n"
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")
    monkeypatch.setenv("SORTIMENT_PARTITIONS", "8")

    settings = load_settings({"bootstrap_servers": "flag:1", "group_id": None})

    assert settings.bootstrap_servers == "flag:1"
    assert settings.partitions == 8
    assert settings.top_k == 7
    assert settings.group_id == "sortiment"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")

    assert load_settings().redis_url is None


def test_all_that_is_wrong_is_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORTIMENT_PARTITIONS", "many")
    monkeypatch.setenv("SORTIMENT_PARTIONS", "3")

    found = problems(broker="rabbit", control_topic="products")

    assert len(found) == 4
    assert found[0].startswith("SORTIMENT_PARTIONS")
    assert "SORTIMENT_PARTITIONS" in found[0]
    assert any(p.startswith("SORTIMENT_PARTITIONS (--partitions)") and "'many'" in p for p in found)
    assert any(p.startswith("SORTIMENT_BROKER (--broker)") and "'embedded'" in p for p in found)
    assert any(p.startswith("SORTIMENT_CONTROL_TOPIC") and "a topic of its own" in p for p in found)


def test_an_unknown_variable_in_the_file_is_found_too() -> None:
    Path(".env").write_text("SORTIMENT_WEBPORT=1\nOTHER=1\n")

    (problem,) = problems()

    assert "SORTIMENT_WEBPORT" in problem
    assert "SORTIMENT_WEB_PORT" in problem


def test_the_folder_of_local_services_is_no_typing_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORTIMENT_CACHE", "/somewhere")

    load_settings()


@pytest.mark.parametrize(
    ("flags", "first", "said"),
    [
        ({"heartbeat_interval_ms": "11000"}, "SORTIMENT_HEARTBEAT_INTERVAL_MS", "third"),
        ({"drain_timeout_s": "31"}, "SORTIMENT_DRAIN_TIMEOUT_S", "session timeout"),
        ({"max_poll_interval_ms": "20000"}, "SORTIMENT_MAX_POLL_INTERVAL_MS", "at least"),
        ({"sasl_username": "user"}, "SORTIMENT_SASL_USERNAME", "SASL_PLAINTEXT or SASL_SSL"),
        ({"ssl_cafile": "ca.pem"}, "SORTIMENT_SSL_CAFILE", "SSL or SASL_SSL"),
        (
            {"ssl_cafile": "nowhere.pem", "security_protocol": "SSL"},
            "SORTIMENT_SSL_CAFILE",
            "nowhere.pem",
        ),
        (
            {"broker": "embedded", "security_protocol": "SSL"},
            "SORTIMENT_SECURITY_PROTOCOL",
            "embedded",
        ),
        ({"broker": "embedded", "create_topics": True}, "SORTIMENT_CREATE_TOPICS", "unset"),
        ({"attributes_topic": "products"}, "SORTIMENT_ATTRIBUTES_TOPIC", "SORTIMENT_INPUT_TOPIC"),
        ({"backfill_topic": "products"}, "SORTIMENT_BACKFILL_TOPIC", "SORTIMENT_INPUT_TOPIC"),
        ({"broker": "embedded", "backfill_topic": "past"}, "SORTIMENT_BACKFILL_TOPIC", "lose"),
        (
            {"backfill_poll_records": "9000"},
            "SORTIMENT_MAX_IN_FLIGHT_PRODUCTS",
            "SORTIMENT_BACKFILL_POLL_RECORDS=9000",
        ),
        ({"input_topic": ".."}, "SORTIMENT_INPUT_TOPIC", "other than"),
        (
            {"max_batch_products": "9000"},
            "SORTIMENT_MAX_IN_FLIGHT_PRODUCTS",
            "SORTIMENT_MAX_BATCH_PRODUCTS=9000",
        ),
        (
            {"max_poll_records": "9000"},
            "SORTIMENT_MAX_IN_FLIGHT_PRODUCTS",
            "SORTIMENT_MAX_POLL_RECORDS=9000",
        ),
        ({"bootstrap_servers": "kafka"}, "KAFKA_BOOTSTRAP_SERVERS", "host:port"),
        ({"redis_url": "http://h"}, "REDIS_URL", "rediss://"),
        ({"redis_url": "redis://h:x"}, "REDIS_URL", "rediss://"),
        ({"redis_url": "redis://h/0?ssl_ca_cert=/x"}, "REDIS_URL", "options of redis-py's"),
        ({"redis_url": "redis://h?socket_timeout=soon"}, "REDIS_URL", "options of redis-py's"),
        ({"redis_url": "redis://a..b"}, "REDIS_URL", "rediss://"),
        ({"input_topic": "a b"}, "SORTIMENT_INPUT_TOPIC", "'a b'"),
        ({"delivery": "at_most_once"}, "SORTIMENT_DELIVERY", "'exactly_once' or 'at_least_once'"),
        ({"broker": "embedded", "delivery": "exactly_once"}, "SORTIMENT_DELIVERY", "embedded"),
        (
            {"transaction_interval_ms": "10001"},
            "SORTIMENT_TRANSACTION_INTERVAL_MS",
            "SORTIMENT_SESSION_TIMEOUT_MS=30000",
        ),
        ({"web_port": "0"}, "SORTIMENT_WEB_PORT", "'0'"),
    ],
)
def test_one_contradiction_is_one_problem(flags: dict[str, Any], first: str, said: str) -> None:
    (problem,) = problems(**flags)

    assert problem.startswith(first)
    assert said in problem


def test_sasl_asks_for_all_that_is_missing() -> None:
    found = problems(security_protocol="SASL_SSL", sasl_username="user")

    assert [problem.split()[0] for problem in found] == [
        "SORTIMENT_SASL_MECHANISM",
        "SORTIMENT_SASL_PASSWORD:",
    ]


@pytest.mark.parametrize("name", ["ssl_certfile", "ssl_keyfile"])
def test_certificate_and_key_come_together(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.write_text("")
    other = {"ssl_certfile": "ssl_keyfile", "ssl_keyfile": "ssl_certfile"}[name]

    (problem,) = problems(security_protocol="SSL", **{name: str(path)})

    assert problem.startswith(variable(other))


def test_no_secret_is_in_a_problem_or_in_what_status_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SORTIMENT_SASL_PASSWORD", "hunter2")
    for url in ("http://u:hunter2@host/0?password=hunter2", "redis://u:hunter2?x@host"):
        assert "hunter2" not in "\n".join(problems(redis_url=url))
    shown = "\n".join(problems(redis_url="http://u:hunter2@host/0?password=hunter2"))
    settings = load_settings(
        {
            "redis_url": "redis://u:hunter2@host/0",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "user",
        }
    )

    assert "hunter2" not in shown
    assert "hunter2" not in str(settings.public())
    assert "hunter2" not in repr(settings) + repr(settings.kafka())
    assert settings.public()["redis_url"] == "redis://***@host/0"
    assert settings.kafka().sasl_password == "hunter2"


def test_a_password_is_known_in_both_its_forms() -> None:
    settings = load_settings({"redis_url": "redis://:p%40ss@host"})

    assert set(settings.secrets()) == {"p%40ss", "p@ss"}


def test_secrets_have_no_flag() -> None:
    assert [name for name in Settings.model_fields if flag(name) is None] == ["sasl_password"]


def test_delivery_is_exactly_once_except_with_the_embedded_broker() -> None:
    assert load_settings().delivery == "exactly_once"
    assert load_settings({"broker": "embedded"}).delivery == "at_least_once"


def test_a_transaction_lasts_no_longer_than_a_session_and_than_brokers_allow() -> None:
    assert load_settings({"session_timeout_ms": 40_000}).transaction_timeout_ms == 40_000
    longest = load_settings({"session_timeout_ms": 1_800_000, "max_poll_interval_ms": 1_800_000})
    assert longest.transaction_timeout_ms == 900_000


def test_the_embedded_broker_creates_no_topics() -> None:
    assert not load_settings({"broker": "embedded"}).topics().create
    assert load_settings().topics().create


def test_what_kubernetes_tells_of_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    of_services = {
        "SORTIMENT_SERVICE_HOST": "10.0.0.1",
        "SORTIMENT_WORKER_SERVICE_PORT": "6066",
        "SORTIMENT_WORKER_SERVICE_PORT_WEB": "6066",
        "SORTIMENT_WORKER_PORT": "tcp://10.0.0.1:6066",
        "SORTIMENT_WORKER_PORT_6066_TCP": "tcp://10.0.0.1:6066",
        "SORTIMENT_WORKER_PORT_6066_TCP_ADDR": "10.0.0.1",
    }
    for name, value in of_services.items():
        monkeypatch.setenv(name, value)
    load_settings()
    monkeypatch.setenv("SORTIMENT_WORKER_PORT", "6066")
    with pytest.raises(ConfigError, match="SORTIMENT_WORKER_PORT: there is no such variable"):
        load_settings()
