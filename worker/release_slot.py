"""One role of releases in a worker: what is announced for it, and what serves."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

from models.addresses import without_secrets
from worker.announcement import Announcement, CanaryReturn, Role
from worker.serving import Serving

__all__ = ["Slot"]


@dataclass(slots=True)
class Slot:
    """A role and its release.

    Attributes:
        role: what the release does.
        announced: what the control topic says; None: nothing, or that there is none.
        serving: what is loaded and serves.
        served: the announcement that this was loaded for; None where the settings name it.
        ended: the return that ends an announcement, once one is known.
        note: what goes on, for a person.
        news: set when something else may be wanted.
    """

    role: Role
    announced: Announcement | None = None
    serving: Serving | None = None
    served: Announcement | None = None
    ended: CanaryReturn | None = None
    note: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def returned(self) -> str | None:
        """Why the announced release was given up, if it was."""
        if self.ended is None or self.announced is None or not self.ended.ends(self.announced):
            return None
        return self.ended.reason

    @property
    def wanted(self) -> Announcement | None:
        """What is to serve, as far as the control topic goes."""
        return None if self.returned is not None else self.announced

    def serves(self, manifest_sha256: str | None) -> bool:
        """Whether the release of this digest serves; any does, for None."""
        if self.serving is None:
            return False
        return manifest_sha256 in (None, self.serving.release.manifest_sha256)

    def release(self) -> dict[str, Any] | None:
        """What serves, as JSON takes it."""
        if self.serving is None:
            return None
        release = self.serving.release
        return {
            "release": release.id,
            "manifest_sha256": release.manifest_sha256,
            "architecture": release.architecture,
            "taxonomy_version": release.taxonomy.version,
        }

    def announcement(self) -> dict[str, Any] | None:
        """What is announced, as JSON takes it; without the credentials of its address."""
        if self.announced is None:
            return None
        return asdict(self.announced) | {"address": without_secrets(self.announced.address)}

    def status(self) -> dict[str, Any] | None:
        """A role beside the active one, as JSON takes it; None where nothing is announced."""
        if self.announced is None and self.serving is None:
            return None
        return {
            "serving": self.release(),
            "announced": self.announcement(),
            "returned": self.returned,
            "note": self.note,
        }
