"""One clean log: one format for every library, secrets masked."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import orjson

__all__ = ["LogFormat", "RecentErrors", "set_up_logging"]

LogFormat = Literal["text", "json"]

_KEPT_ERRORS = 20

# aiokafka retries metadata without a pause: two short outages of a broker made 31,000 lines.
_REPEAT_INTERVAL_S = 1.0
_MAX_REPEATS = 1_000

# Their INFO tells of their own insides; what matters of it the worker says itself.
_QUIET = ("aiokafka", "faust", "mode", "asyncio", "kafka", "urllib3", "fsspec")


class RecentErrors(logging.Handler):
    """Keeps the last warnings and errors, for the status page."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(_Text(secrets))
        self.addFilter(_is_told_once)
        self.addFilter(_Repeats())
        self._lines: deque[str] = deque(maxlen=_KEPT_ERRORS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of what was logged."""
        self._lines.append(self.format(record).partition("\n")[0])

    def lines(self) -> list[str]:
        """Oldest first."""
        return list(self._lines)


def set_up_logging(level: str, log_format: LogFormat, secrets: Sequence[str] = ()) -> RecentErrors:
    """Send all logs to standard error, and warnings with them.

    Args:
        level: least severity, in lower case.
        secrets: texts that are masked wherever they turn up, tracebacks included.

    Returns:
        What keeps the last warnings and errors.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Json if log_format == "json" else _Text)(secrets))
    handler.addFilter(_is_told_once)
    handler.addFilter(_Repeats())
    recent = RecentErrors(secrets)
    logging.basicConfig(level=level.upper(), handlers=[handler, recent], force=True)
    logging.captureWarnings(True)
    if level != "debug":
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
    return recent


def _is_told_once(record: logging.LogRecord) -> bool:
    # mode logs a crash at every service that it passes; worker.app tells it once, at the end.
    return "Crashed reason=" not in str(record.msg)


class _Repeats(logging.Filter):
    """Lets a library say the same thing once a second; the worker's own lines all pass."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is new, or a second after its like."""
        if record.name.partition(".")[0] not in _QUIET:
            return True
        # The format, not the text: numbers and addresses in it differ.
        same = record.name, record.msg
        last_s = self._last_s.get(same)
        if last_s is not None and record.created - last_s < _REPEAT_INTERVAL_S:
            return False
        if len(self._last_s) >= _MAX_REPEATS:
            self._last_s.clear()
        self._last_s[same] = record.created
        return True


class _Masking(logging.Formatter):
    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s")
        self._secrets = tuple(secret for secret in secrets if secret)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """RFC 3339 in UTC, milliseconds."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Text(_Masking):
    def formatMessage(self, record: logging.LogRecord) -> str:
        # Errors quote sellers' text: a line break in it must not forge a line of the log.
        record.message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return self._masked(super().format(record))


class _Json(_Masking):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._masked(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self._masked(self.formatException(record.exc_info))
        # Replaced, for a lone surrogate in a message must not lose the line.
        return orjson.dumps(
            {name: text.encode("utf-8", "replace").decode() for name, text in line.items()}
        ).decode()
