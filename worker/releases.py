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

from aiokafka import ConsumerRecord
from mode import Service

from models.addresses import without_secrets
from worker.announcement import RETURN_KEY, ROLES, Announcement, CanaryReturn, Role, role_key
from worker.control_topic import Latest, follow
from worker.errors import ReleaseError, TransientError
from worker.kafka import KafkaConfig
from worker.metrics import Metrics
from worker.release_slot import Slot
from worker.serving import Serving, ServingLoader

__all__ = ["ReleaseControl", "TakeRelease"]

_log = logging.getLogger(__name__)

# A refusal may be the network's fault; looking again once a minute costs nothing.
_RETRY_REFUSED_S = 60.0
_RETRY_TELL_S = 5.0
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
        self._threads: list[threading.Thread] = []
        self._loads: dict[str, asyncio.Future[Serving]] = {}

    @property
    def is_loading(self) -> bool:
        """Whether a thread still loads a release, even after the service was stopped."""
        return any(thread.is_alive() for thread in self._threads)

    def not_ready(self) -> list[str]:
        """Why no release is served; empty when one is."""
        return [] if self._active.serving is not None else [self._active.note]

    def status(self) -> dict[str, Any]:
        """What is active, announced and refused, as JSON takes it."""
        return {
            "active": self._active.release(),
            "pinned": without_secrets(self._pinned) if self._pinned is not None else None,
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
        # The announcement that it was loaded for: a newer one may be loading, and is another try.
        if slot.serving is not serving or slot.served is None:
            return
        ended = CanaryReturn(
            manifest_sha256=slot.served.manifest_sha256,
            announced_at=slot.served.announced_at,
            reason=reason,
        )
        _log.error("canary %s given up: %s", serving.release.id, reason)
        self._metrics.returned_canaries.inc()
        if slot.announced is not None and ended.ends(slot.announced):
            slot.ended = ended
        self._end(slot)
        self._returns.put_nowait(ended)

    def _masks_status(self) -> dict[str, Any]:
        masks = self._active.serving.masks if self._active.serving is not None else None
        remote = self._loader.remote
        return {
            "resident_categories": masks.num_resident if masks is not None else 0,
            "redis": "not set" if remote is None else remote.state,
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
        first, self._read_whole = not self._read_whole, True
        for role, slot in self._slots.items():
            before = slot.wanted
            if (record := latest.get(role_key(role))) is not None:
                self._read_announcement(slot, record)
            if role == "canary" and (record := latest.get(RETURN_KEY)) is not None:
                self._read_return(slot, record)
            if self._pinned is None and (first or slot.wanted != before):
                if slot is not self._active and slot.wanted is None:
                    self._end(slot)  # at once, whatever is being loaded
                slot.news.set()

    def _read_announcement(
        self, slot: Slot, record: ConsumerRecord[bytes | None, bytes | None]
    ) -> None:
        where = f"{record.topic}[{record.partition}] offset {record.offset}"
        try:
            announced = Announcement.from_json(record.value) if record.value else None
            if slot.role == "canary" and announced is not None and announced.share >= 1:
                raise ReleaseError(
                    "a canary's share must be below 1, or there is nothing to compare it with"
                )
        except ReleaseError as error:
            self._refuse(slot, where, error)
            return
        slot.announced = announced
        _log.info(
            "announced as %s at %s: %s",
            slot.role,
            where,
            announced.release if announced else "none",
        )

    def _read_return(self, slot: Slot, record: ConsumerRecord[bytes | None, bytes | None]) -> None:
        if not record.value:
            return
        try:
            ended = CanaryReturn.from_json(record.value)
        except ReleaseError as error:
            self._refuse(slot, f"{record.topic} offset {record.offset}", error)
            return
        # An older canary's return must not make this one forget its own.
        if slot.announced is not None and ended.ends(slot.announced):
            slot.ended = ended

    @Service.task
    async def _load(self) -> None:
        await asyncio.gather(*(self._keep(slot) for slot in self._slots.values()))

    async def _keep(self, slot: Slot) -> None:
        while not self.should_stop:
            is_settled = await self._settle(slot)
            with suppress(TimeoutError):
                await asyncio.wait_for(slot.news.wait(), None if is_settled else _RETRY_REFUSED_S)
            slot.news.clear()

    async def _settle(self, slot: Slot) -> bool:
        """Bring a role to what is wanted; False where its release is refused."""
        if self._pinned is not None:
            if slot is not self._active:
                slot.note = "SORTIMENT_RELEASE overrules it"
                return True
            return slot.serves(None) or await self._load_one(slot, self._pinned, None)
        wanted = slot.wanted
        if wanted is not None:
            if not slot.serves(wanted.manifest_sha256):
                return await self._load_one(slot, wanted.address, wanted)
            if slot.served != wanted:
                self._serve(slot, slot.serving, wanted)
            slot.note = "serving"
        elif slot is not self._active:
            self._end(slot)
        elif slot.serving is None and self._read_whole:
            slot.note = self._nothing_announced()
            _log.warning("%s", slot.note)
        return True

    def _end(self, slot: Slot) -> None:
        """A role beside the active one is nobody's any more."""
        if slot.serving is not None:
            self._serve(slot, None, None)
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

    async def _load_one(self, slot: Slot, address: str, wanted: Announcement | None) -> bool:
        """Load beside what is served, and swap; False where the release is refused.

        Args:
            wanted: None: what the settings name.
        """
        before = slot.serving
        digest = wanted.manifest_sha256 if wanted is not None else None
        serving = self._loaded(digest)
        if serving is None:
            slot.note = f"loading the release at {without_secrets(address)}{_beside(slot)}"
            _log.info("%s", slot.note)
            loading = self._loading_of(address, digest)
            if await self._is_overtaken(slot, wanted, loading):
                return True
            try:
                serving = loading.result()
            except Exception as error:  # noqa: BLE001
                # A release comes from outside and may fail in any way; the worker must outlive it.
                self._refuse(slot, address, error)
                return False
        if self._pinned is None and slot.wanted != wanted:
            slot.news.set()  # overtaken while it was loaded
            return True
        self._serve(slot, serving, wanted)
        slot.note = "serving"
        if before is not None:
            _log.info("swapped: %s after %s", serving.release.id, before.release.id)
        return True

    def _loading_of(self, address: str, digest: str | None) -> asyncio.Future[Serving]:
        """A load: the one that is under way, where another role waits for the same release."""
        key = digest or address
        loading = self._loads.get(key)
        if loading is None:
            loading = self._on_thread(lambda: self._loader.load(address, digest))
            self._loads[key] = loading

            def forget(done: asyncio.Future[Serving]) -> None:
                del self._loads[key]
                # Nobody may be waiting any more.
                done.cancelled() or done.exception()

            loading.add_done_callback(forget)
        return loading

    async def _is_overtaken(
        self, slot: Slot, wanted: Announcement | None, loading: asyncio.Future[Serving]
    ) -> bool:
        """Wait for a load; whether something else is wanted before its end: a store may hang."""
        while not loading.done():
            news = asyncio.create_task(slot.news.wait())
            try:
                either: set[asyncio.Future[Any]] = {loading, news}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if loading.done():
                break
            slot.news.clear()
            if self._pinned is None and slot.wanted != wanted:
                slot.news.set()
                return True
        return False

    def _loaded(self, manifest_sha256: str | None) -> Serving | None:
        """What serves this release in any role: it is held in memory once."""
        if manifest_sha256 is None:
            return None
        servings = (s.serving for s in self._slots.values() if s.serves(manifest_sha256))
        return next(servings, None)

    def _serve(self, slot: Slot, serving: Serving | None, served: Announcement | None) -> None:
        slot.serving, slot.served = serving, served
        self._take(slot.role, serving, served.share if served is not None else 1.0)

    def _on_thread(self, load: Callable[[], Serving]) -> asyncio.Future[Serving]:
        # Not an executor's thread: these are waited for at exit, and a fetch may take minutes.
        loaded: concurrent.futures.Future[Serving] = concurrent.futures.Future()
        loaded.set_running_or_notify_cancel()

        def work() -> None:
            try:
                loaded.set_result(load())
            except BaseException as error:  # noqa: BLE001  raised again where it is awaited
                loaded.set_exception(error)

        thread = threading.Thread(target=work, name="load release", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()
        return asyncio.wrap_future(loaded)

    @Service.task
    async def _tell_returns(self) -> None:
        canary = self._slots["canary"]
        while not self.should_stop:
            ended = await self._returns.get()
            # One that another announcement has overtaken would hide the return of that one.
            while canary.announced is not None and ended.ends(canary.announced):
                try:
                    await self._tell(ended)
                    break
                except TransientError as error:
                    _log.warning("telling the other workers of a canary's end: %s", error)
                    await self.sleep(_RETRY_TELL_S)

    def _refuse(self, slot: Slot, what: str, error: Exception) -> None:
        # An address may carry credentials, and errors quote addresses.
        reason = (str(error) or repr(error)).replace(what, without_secrets(what))
        what = without_secrets(what)
        self._metrics.refused_releases.inc()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._refusals.append({"what": what, "role": slot.role, "reason": reason, "at": now})
        slot.note = f"refused {what}: {reason}{_beside(slot)}"
        _log.error("refused as %s %s: %s", slot.role, what, reason)


def _beside(slot: Slot) -> str:
    return f"; serving {slot.serving.release.id}" if slot.serving is not None else ""
