"""Logs: one format, no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from worker.logs import set_up_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("aiokafka", "faust", "mode")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def test_text_has_time_level_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text")

    logging.getLogger("worker.x").info("hello %d", 1)

    line = capsys.readouterr().err
    assert line.endswith(" INFO     worker.x: hello 1\n")
    assert "+00:00" in line


def test_json_is_one_object_a_line_with_the_traceback_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging("info", "json")

    logging.getLogger("worker.x").error("lone \ud800", exc_info=ValueError("bad"))

    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "error"
    assert line["logger"] == "worker.x"
    assert line["message"] == "lone ?"
    assert "ValueError: bad" in line["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_masked_in_messages_and_tracebacks(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    recent = set_up_logging("info", log_format, ["hunter2"])  # type: ignore[arg-type]

    logging.getLogger("worker.x").error("as hunter2", exc_info=ValueError("hunter2"))

    shown = capsys.readouterr().err + "".join(recent.lines())
    assert "hunter2" not in shown
    assert "as ***" in shown


def test_libraries_are_quiet_unless_debugged(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert capsys.readouterr().err == ""

    logging.getLogger("aiokafka").setLevel(logging.NOTSET)
    set_up_logging("debug", "text")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert "joined" in capsys.readouterr().err


def test_a_crash_is_not_told_by_every_service_that_it_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recent = set_up_logging("info", "text")

    logging.getLogger("worker.x").error("[^-X]: Crashed reason=%r", ValueError("bad"))

    assert capsys.readouterr().err == ""
    assert recent.lines() == []


def test_the_last_warnings_and_errors_are_kept() -> None:
    recent = set_up_logging("error", "text")

    for number in range(30):
        logging.getLogger("worker.x").error("number %d\nsecond line", number)
        logging.getLogger("worker.x").info("not kept")

    lines = recent.lines()
    assert len(lines) == 20
    assert lines[0].endswith(r"number 10\nsecond line")
    assert lines[-1].endswith(r"number 29\nsecond line")


def test_a_library_says_the_same_thing_once_a_second() -> None:
    recent = set_up_logging("info", "text")
    library = logging.getLogger("aiokafka.client")

    def say(at_s: float, number: int) -> None:
        record = library.makeRecord(
            library.name, logging.WARNING, "f", 1, "node %d is away", (number,), None
        )
        record.created = at_s
        library.handle(record)

    for number, at_s in enumerate([100.0, 100.2, 100.9, 101.1, 101.2, 103.0]):
        say(at_s, number)

    assert [line.rpartition("node ")[2] for line in recent.lines()] == [
        "0 is away",
        "3 is away",
        "5 is away",
    ]


def test_the_workers_own_lines_all_pass() -> None:
    recent = set_up_logging("info", "text")

    for number in range(3):
        logging.getLogger("worker.delivery").warning("try %d", number)

    assert len(recent.lines()) == 3
