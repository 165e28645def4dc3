"""Errors of the local services.

SortimentError
└─ LocalServiceError        a service that did not start, or ended by itself
   └─ ServiceMissing        nothing on this machine can provide it, or it cannot be fetched
"""

from __future__ import annotations

from models.errors import SortimentError

__all__ = ["LocalServiceError", "ServiceMissing"]


class LocalServiceError(SortimentError):
    """A local service that did not start or ended by itself; names its log file."""


class ServiceMissing(LocalServiceError):
    """No way to get the service here; says which ways there are."""
