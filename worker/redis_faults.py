"""A failed call of Redis in words: what is wrong and what to do, and never a secret."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

__all__ = ["is_foreign_value", "told"]

_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "see the user and the password in REDIS_URL"),
    (AuthenticationWrongNumberOfArgsError, "see the user and the password in REDIS_URL"),
    (NoPermissionError, "grant the user in REDIS_URL all commands on the worker's keys"),
    (OutOfMemoryError, "it is full: raise its maxmemory, or let it evict (allkeys-lru)"),
    (ReadOnlyError, "it is a replica: REDIS_URL must name the primary"),
)
# What a command says to a key that holds another type than ours, or a hash with other fields.
_FOREIGN = ("WRONGTYPE", "hash value is not an integer")


def told(error: Exception) -> str:
    """The error's class, with a remedy where there is one.

    Never its message: that may quote the address with its password.
    """
    remedy = next((text for kind, text in _REMEDIES if isinstance(error, kind)), None)
    name = type(error).__name__
    return name if remedy is None else f"{name}; {remedy}"


def is_foreign_value(error: object) -> bool:
    """Whether Redis refused a command for what somebody else has put under its key."""
    return isinstance(error, ResponseError) and any(text in str(error) for text in _FOREIGN)
