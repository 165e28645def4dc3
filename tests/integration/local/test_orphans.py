"""Local services end with the process that started them, however that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polling import until_blocking

# Starts services in a thread that ends at once: a death signal of the thread must not end them.
_STARTER = """
import json, os, signal, sys, threading
from worker.local.kafka import start_kafka
from worker.local.redis import start_redis

started = []
def start():
    started.append(start_kafka(os.environ, source=sys.argv[1]))
    started.append(start_redis({}))
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(json.dumps([[s.service._child.pid, str(s.service.directory)] for s in started]), flush=True)
if sys.argv[2] == "exit":
    sys.exit(3)
signal.pause()
"""


@pytest.mark.parametrize(
    ("source", "end"),
    [
        *(("embedded", end) for end in ("SIGKILL", "SIGTERM", "SIGINT", "exit")),
        ("maven", "SIGKILL"),
    ],
)
def test_nothing_outlives_its_starter(source: str, end: str) -> None:
    environ = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    with subprocess.Popen(
        [sys.executable, "-c", _STARTER, source, end],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdout is not None
        try:
            services = json.loads(starter.stdout.readline())
            assert all(_runs(pid) for pid, _ in services)
            if end != "exit":
                starter.send_signal(signal.Signals[end])
            starter.wait(60)
        finally:
            starter.kill()
        until_blocking(lambda: _left(services), 20, "services and their folders gone")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _left(services: list[tuple[int, str]]) -> str | None:
    left = [service for service in services if _runs(service[0]) or Path(service[1]).exists()]
    return f"still there: {left}" if left else None
