"""Errors of the worker, on the root in models/errors.py. Each answers: retry, drop or die?

SortimentError
├─ ConfigError       die: exit code 2, never retried
├─ EventError        drop: the event becomes a dead letter with ``reason``
├─ TransientError    retry: the same call may succeed later
│  ├─ BrokerError
│  └─ CacheError
├─ ReleaseError      refuse the release, keep what runs      (models/errors.py)
└─ ModelError        bisect the batch to the product at fault (models/errors.py)
"""

from __future__ import annotations

from collections.abc import Sequence

from models.errors import ModelError, ReleaseError, SortimentError

__all__ = [
    "BrokerError",
    "CacheError",
    "ConfigError",
    "EventError",
    "ModelError",
    "ReleaseError",
    "SortimentError",
    "TransientError",
]


class ConfigError(SortimentError):
    """Settings that are wrong or contradict each other: all of them at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} problem(s) in the settings:\n{shown}")


class EventError(SortimentError):
    """An event that cannot be processed.

    Args:
        reason: stable code for the dead letter's header and the metric.
        detail: what, where and what to do, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(SortimentError):
    """A fault that may pass by itself."""

    retriable = True


class BrokerError(TransientError):
    """Kafka did not take or give what was asked."""


class CacheError(TransientError):
    """Redis did not take or give what was asked. The worker goes on without it."""
