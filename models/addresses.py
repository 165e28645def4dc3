"""Addresses of releases and services as they may be told to people."""

from __future__ import annotations

import re

__all__ = ["without_password", "without_secrets"]

_ENDS_HOST = re.compile(r"[/?#]")


def without_password(address: str) -> str:
    """The address, ``***`` for user and password, whatever characters these have.

    Up to its last ``@`` all may be a password's: a ``/``, ``?`` or ``#`` that nobody escaped, too.
    Without a ``:`` there is none, and the ``@`` may be a path's.
    """
    scheme, rest = _parts(address)
    credentials, _, host = rest.rpartition("@")
    is_path = ":" not in credentials and bool(_ENDS_HOST.search(credentials))
    return f"{scheme}***@{host}" if credentials and not is_path else address


def without_secrets(address: str) -> str:
    """The address without user, password and query, which may hold a password as well."""
    scheme, rest = _parts(address)
    before, question, query = rest.partition("?")
    if "@" in query:
        # Whether the password or the query has it nobody can tell.
        return f"{scheme}***"
    return without_password(f"{scheme}{before}") + ("?***" if question else "")


def _parts(address: str) -> tuple[str, str]:
    """The scheme with its ``://``, empty where there is none, and the rest."""
    scheme, separator, rest = address.partition("://")
    return (f"{scheme}{separator}", rest) if separator else ("", address)
