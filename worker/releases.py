"""Follows the control topic and swaps releases: the active one, a canary, a shadow.

The control topic is compacted and has one partition; ``worker.announcement`` says what is in it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from mode import Service

from worker.announcement import RETURN_KEY, ROLES, Announcement, CanaryReturn, Role, role_key
from worker.control_topic import Latest, follow
from worker.errors import ReleaseError, TransientError
from worker.kafka import KafkaConfig
from worker.metrics import Metrics
from worker.release_slot import Slot
from worker.serving import Serving, ServingLoader
from worker.settings import mask

__all__ = ["ReleaseControl", "TakeRelease"]

_log = logging.getLogger(__name__)

# A refusal may be the network's fault; looking again once a minute costs nothing.
_RETRY_REFUSED_S = 60.0
_RETRY_TELL_S = 1.0
_KEPT_REFUSALS = 5


class TakeRelease(Protocol):
    """Takes a release that is ready, or None in its place, on the event loop."""

    def __call__(self, role: Role, serving: Serving | None, share: float = 1.0) -> None:
        """From now on a role is this release's, for a share of the products."""
        ...


class ReleaseControl(Service):
    """Loads what is announced beside what is served, then swaps.

    A release that is refused changes nothing: the one before goes on, and the reason is told. To
    roll back, announce the old one.

    Args:
        loader: loads and checks a release, on a thread.
        take: gets the release that is ready.
        tell: writes to the control topic that a canary is given up.
        pinned: address from the settings: then the control topic overrules nothing.
    """

    # mode tells of every start and stop; the worker tells of what they mean.
    mundane_level = "debug"

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str,
        loader: ServingLoader,
        take: TakeRelease,
        tell: Callable[[CanaryReturn], Awaitable[None]],
        metrics: Metrics,
        *,
        pinned: str | None = None,
    ) -> None:
        super().__init__()
        self._kafka = kafka
        self._topic = topic
        self._loader = loader
        self._take = take
        self._tell = tell
        self._metrics = metrics
        self._pinned = pinned
        self._slots: dict[Role, Slot] = {role: Slot(role) for role in ROLES}
        self._active = self._slots["active"]
        self._active.note = f"reading topic {topic}"
        self._refusals: deque[dict[str, str]] = deque(maxlen=_KEPT_REFUSALS)
        self._returns: asyncio.Queue[CanaryReturn] = asyncio.Queue()
        self._read_whole = False
        self._news = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_loading(self) -> bool:
        """Whether a thread still loads a release, even after the service was stopped."""
        return self._thread is not None and self._thread.is_alive()

    def not_ready(self) -> list[str]:
        """Why no release is served; empty when one is."""
        return [] if self._active.serving is not None else [self._active.note]

    def status(self) -> dict[str, Any]:
        """What is active, announced and refused, as JSON takes it."""
        return {
            "active": self._active.active(),
            "pinned": mask(self._pinned) if self._pinned is not None else None,
            "announced": self._active.announcement(),
            "note": self._note(),
            "canary": self._slots["canary"].status(),
            "shadow": self._slots["shadow"].status(),
            "refused": list(self._refusals),
            "masks": self._masks_status(),
        }

    def return_canary(self, serving: Serving, reason: str) -> None:
        """Give a canary up, here at once and everywhere by the control topic."""
        slot = self._slots["canary"]
        if slot.serving is not serving or slot.announced is None:
            return  # another has been announced meanwhile
        announced = slot.announced
        slot.ended = CanaryReturn(
            manifest_sha256=announced.manifest_sha256,
            announced_at=announced.announced_at,
            reason=reason,
        )
        _log.error("canary %s given up: %s", serving.release.id, reason)
        self._metrics.returned_canaries.inc()
        self._end(slot)
        self._returns.put_nowait(slot.ended)

    def _masks_status(self) -> dict[str, Any]:
        masks = self._active.serving.masks if self._active.serving is not None else None
        remote = self._loader.remote
        return {
            "resident_categories": masks.num_resident if masks is not None else 0,
            "redis": "not set" if remote is None else "away" if remote.is_away else "in use",
        }

    def _note(self) -> str:
        announced = self._active.announced
        if self._active.serving is None or self._pinned is None or announced is None:
            return self._active.note
        if self._active.serves(announced.manifest_sha256):
            return self._active.note
        return f"{announced.release} is announced; SORTIMENT_RELEASE overrules it"

    @Service.task
    async def _follow(self) -> None:
        await follow(self._kafka, self._topic, self._read)

    def _read(self, latest: Latest) -> None:
        """The topic is read to its end, and this is what is new."""
        before = {role: slot.wanted for role, slot in self._slots.items()}
        first, self._read_whole = not self._read_whole, True
        for role, slot in self._slots.items():
            if (record := latest.get(role_key(role))) is not None:
                where = f"{record.topic}[{record.partition}] offset {record.offset}"
                try:
                    slot.announced = Announcement.from_json(record.value) if record.value else None
                except ReleaseError as error:
                    self._refuse(slot, where, error)
                else:
                    said = slot.announced.release if slot.announced else "none"
                    _log.info("announced as %s at %s: %s", role, where, said)
        if (record := latest.get(RETURN_KEY)) is not None and record.value:
            canary = self._slots["canary"]
            try:
                canary.ended = CanaryReturn.from_json(record.value)
            except ReleaseError as error:
                self._refuse(canary, f"{record.topic} offset {record.offset}", error)
        after = {role: slot.wanted for role, slot in self._slots.items()}
        if self._pinned is None and (first or before != after):
            self._news.set()

    @Service.task
    async def _load(self) -> None:
        while not self.should_stop:
            is_settled = True
            for slot in self._slots.values():
                is_settled &= await self._settle(slot)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), None if is_settled else _RETRY_REFUSED_S)
            self._news.clear()

    async def _settle(self, slot: Slot) -> bool:
        """Bring a role to what is wanted; False where its release is refused."""
        if slot is self._active and self._pinned is not None:
            return slot.serves(None) or await self._load_one(slot, self._pinned, None, 1.0)
        wanted = slot.wanted if self._pinned is None else None
        if wanted is not None:
            if not slot.serves(wanted.manifest_sha256):
                return await self._load_one(
                    slot, wanted.address, wanted.manifest_sha256, wanted.share
                )
            slot.note = "serving"
            if slot.share != wanted.share:
                self._serve(slot, slot.serving, wanted.share)
        elif slot is not self._active:
            self._end(slot)
        elif slot.serving is None and self._read_whole:
            slot.note = self._nothing_announced()
            _log.warning("%s", slot.note)
        return True

    def _end(self, slot: Slot) -> None:
        """A role beside the active one is nobody's any more."""
        if slot.serving is not None:
            self._serve(slot, None, 0.0)
            _log.info("%s ended", slot.role)
        slot.note = f"given up: {slot.returned}" if slot.returned is not None else "ended"

    def _nothing_announced(self) -> str:
        text = (
            f"no release is announced on topic {self._topic}: "
            "run `sortiment-worker announce ADDRESS`, or set SORTIMENT_RELEASE"
        )
        if self._refusals:
            last = self._refusals[-1]
            text += f"; refused {last['what']}: {last['reason']}"
        return text

    async def _load_one(
        self, slot: Slot, address: str, manifest_sha256: str | None, share: float
    ) -> bool:
        """Load beside what is served, and swap; False where the release is refused."""
        before = slot.serving
        serving = next(
            (
                other.serving
                for other in self._slots.values()
                if manifest_sha256 is not None and other.serves(manifest_sha256)
            ),
            None,
        )
        if serving is None:
            slot.note = f"loading the release at {mask(address)}{_beside(slot)}"
            _log.info("%s", slot.note)
            try:
                serving = await self._on_thread(lambda: self._loader.load(address, manifest_sha256))
            except Exception as error:  # noqa: BLE001
                # A release comes from outside and may fail in any way; the worker must outlive it.
                self._refuse(slot, address, error)
                return False
        self._serve(slot, serving, share)
        slot.note = "serving"
        if before is not None:
            _log.info("swapped: %s after %s", serving.release.id, before.release.id)
        return True

    def _serve(self, slot: Slot, serving: Serving | None, share: float) -> None:
        slot.serving, slot.share = serving, share
        self._take(slot.role, serving, share)

    async def _on_thread(self, load: Callable[[], Serving]) -> Serving:
        # Not an executor's thread: these are waited for at exit, and a fetch may take minutes.
        loaded: concurrent.futures.Future[Serving] = concurrent.futures.Future()
        loaded.set_running_or_notify_cancel()

        def work() -> None:
            try:
                loaded.set_result(load())
            except BaseException as error:  # noqa: BLE001  raised again where it is awaited
                loaded.set_exception(error)

        self._thread = threading.Thread(target=work, name="load release", daemon=True)
        self._thread.start()
        return await asyncio.wrap_future(loaded)

    @Service.task
    async def _tell_returns(self) -> None:
        while not self.should_stop:
            ended = await self._returns.get()
            while not self.should_stop:
                try:
                    await self._tell(ended)
                    break
                except TransientError as error:
                    _log.warning("telling the other workers of a canary's end: %s", error)
                    await self.sleep(_RETRY_TELL_S)

    def _refuse(self, slot: Slot, what: str, error: Exception) -> None:
        # An address may carry credentials, and errors quote addresses.
        reason = (str(error) or repr(error)).replace(what, mask(what))
        what = mask(what)
        self._metrics.refused_releases.inc()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._refusals.append({"what": what, "role": slot.role, "reason": reason, "at": now})
        slot.note = f"refused {what}: {reason}{_beside(slot)}"
        _log.error("refused as %s %s: %s", slot.role, what, reason)


def _beside(slot: Slot) -> str:
    return f"; serving {slot.serving.release.id}" if slot.serving is not None else ""
