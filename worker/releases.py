"""The control topic: which release is active. Read whole by every worker, then followed.

A record's key says what it is about, its last value counts. One key is known here:
``active-release``, whose value is an ``Announcement`` in JSON.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from mode import Service

from worker.errors import BrokerError, ReleaseError
from worker.kafka import KafkaConfig
from worker.metrics import Metrics
from worker.serving import Serving, ServingLoader
from worker.settings import mask

__all__ = ["ACTIVE_RELEASE_KEY", "Announcement", "ReleaseControl"]

_log = logging.getLogger(__name__)

ACTIVE_RELEASE_KEY = b"active-release"
SCHEMA = "sortiment.control.v1"
# A refusal may be the network's fault; looking again once a minute costs nothing.
_RETRY_REFUSED_S = 60.0
_RETRY_BROKER_S = 1.0
_POLL_MS = 1_000
_KEPT_REFUSALS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """That a release is to be served.

    Attributes:
        release: ``name/version``.
        address: where it is; anything that fsspec reads.
        manifest_sha256: digest of its manifest, which holds the digests of all else.
        announced_at: RFC 3339, UTC.
    """

    release: str
    address: str
    manifest_sha256: str
    announced_at: str

    def to_json(self) -> bytes:
        """The record's value."""
        return orjson.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, value: bytes) -> Announcement:
        """What ``to_json`` wrote; unknown fields are ignored.

        Raises:
            ReleaseError: not an announcement; the message says why.
        """
        try:
            raw = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ReleaseError(f"not JSON: {error}") from error
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ReleaseError(f"not an object with schema {SCHEMA}")
        fields = {name: raw.get(name) for name in cls.__slots__}
        wrong = [name for name, text in fields.items() if not isinstance(text, str) or not text]
        if wrong:
            raise ReleaseError(f"{', '.join(wrong)} must be text, and not empty")
        return cls(**{name: str(text) for name, text in fields.items()})


class ReleaseControl(Service):
    """Follows the control topic: loads what is announced beside what is served, then swaps.

    A release that is refused changes nothing: the one before goes on, and the reason is told. To
    roll back, announce the old one.

    Args:
        loader: loads and checks a release, on a thread.
        serve: takes the release that is ready, on the event loop.
        pinned: address from the settings, which the control topic does not overrule.
    """

    # mode tells of every start and stop; the worker tells of what they mean.
    mundane_level = "debug"

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str,
        loader: ServingLoader,
        serve: Callable[[Serving], None],
        metrics: Metrics,
        *,
        pinned: str | None = None,
    ) -> None:
        super().__init__()
        self._kafka = kafka
        self._topic = topic
        self._loader = loader
        self._serve = serve
        self._metrics = metrics
        self._pinned = pinned
        self._announced: Announcement | None = None
        self._serving: Serving | None = None
        self._refusals: deque[dict[str, str]] = deque(maxlen=_KEPT_REFUSALS)
        self._read_whole = False
        self._news = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._state = f"reading topic {topic}"

    @property
    def is_loading(self) -> bool:
        """Whether a thread still loads a release, even after the service was stopped."""
        return self._thread is not None and self._thread.is_alive()

    def not_ready(self) -> list[str]:
        """Why no release is served; empty when one is."""
        return [] if self._serving is not None else [self._state]

    def status(self) -> dict[str, Any]:
        """What is active, announced and refused, as JSON takes it."""
        active, announced = self._serving, self._announced
        return {
            "active": None
            if active is None
            else {
                "release": active.release.id,
                "manifest_sha256": active.release.manifest_sha256,
                "architecture": active.release.architecture,
                "taxonomy_version": active.release.taxonomy.version,
            },
            "pinned": mask(self._pinned) if self._pinned is not None else None,
            "announced": asdict(announced) | {"address": mask(announced.address)}
            if announced
            else None,
            "note": self._note(),
            "refused": list(self._refusals),
            "masks": self._masks_status(),
        }

    def _masks_status(self) -> dict[str, Any]:
        masks = self._serving.masks if self._serving is not None else None
        remote = self._loader.remote
        return {
            "resident_categories": masks.num_resident if masks is not None else 0,
            "redis": "not set" if remote is None else "away" if remote.is_away else "in use",
        }

    def _note(self) -> str:
        active, announced = self._serving, self._announced
        if active is None or self._pinned is None or announced is None:
            return self._state
        if announced.manifest_sha256 == active.release.manifest_sha256:
            return self._state
        return f"{announced.release} is announced; SORTIMENT_RELEASE overrules it"

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                await self._read_topic()
            except KafkaError as error:
                if not error.retriable:
                    raise BrokerError(f"reading control topic {self._topic}: {error!r}") from error
                _log.warning("control topic %s: %r, trying again", self._topic, error)
                await self.sleep(_RETRY_BROKER_S)

    async def _read_topic(self) -> None:
        # Without a group: every worker reads everything, and commits nothing.
        consumer = AIOKafkaConsumer(
            self._topic,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **self._kafka.client_kwargs(),
        )
        try:
            await consumer.start()
            while not consumer.assignment():
                # The embedded broker makes the topic when it is first asked for.
                await self.sleep(0.1)
            ends = await consumer.end_offsets(consumer.assignment())
            latest: ConsumerRecord[bytes | None, bytes | None] | None = None
            behind = set(ends)
            while not self.should_stop:
                behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}
                if not behind:
                    self._take(latest)
                    latest = None
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        if record.key == ACTIVE_RELEASE_KEY:
                            latest = record
        finally:
            await consumer.stop()

    def _take(self, record: ConsumerRecord[bytes | None, bytes | None] | None) -> None:
        """The topic is read to its end, and this was the last record about the release, if any."""
        before, first = self._announced, not self._read_whole
        self._read_whole = True
        if record is not None:
            where = f"{record.topic}[{record.partition}] offset {record.offset}"
            try:
                self._announced = Announcement.from_json(record.value) if record.value else None
            except ReleaseError as error:
                self._refuse(where, error)
            else:
                said = self._announced.release if self._announced else "none"
                _log.info("announced at %s: %s", where, said)
        if self._pinned is None and (first or self._announced != before):
            self._news.set()

    @Service.task
    async def _load(self) -> None:
        while not self.should_stop:
            wanted = self._wanted()
            is_settled = True
            if wanted is not None and not self._serves(wanted):
                is_settled = await self._load_one(*wanted)
            elif wanted is not None:
                self._state = "serving"
            elif self._serving is None and self._read_whole:
                self._state = self._nothing_announced()
                _log.warning("%s", self._state)
            await self._await_news(None if is_settled else _RETRY_REFUSED_S)

    def _serves(self, wanted: tuple[str, str | None]) -> bool:
        """Whether the active release is the wanted one; a pinned one is, once it is loaded."""
        _, manifest_sha256 = wanted
        active = self._serving
        return active is not None and manifest_sha256 in (None, active.release.manifest_sha256)

    def _nothing_announced(self) -> str:
        text = (
            f"no release is announced on topic {self._topic}: "
            "run `sortiment-worker announce ADDRESS`, or set SORTIMENT_RELEASE"
        )
        if self._refusals:
            last = self._refusals[-1]
            text += f"; refused {last['what']}: {last['reason']}"
        return text

    def _wanted(self) -> tuple[str, str | None] | None:
        """Address and manifest digest of the release to load."""
        if self._pinned is not None:
            return self._pinned, None
        if self._announced is not None:
            return self._announced.address, self._announced.manifest_sha256
        return None

    async def _await_news(self, timeout_s: float | None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()

    async def _load_one(self, address: str, manifest_sha256: str | None) -> bool:
        """Load beside what is served, and swap; False where the release is refused."""
        self._state = f"loading the release at {mask(address)}{self._beside()}"
        _log.info("%s", self._state)
        try:
            serving = await self._on_thread(lambda: self._loader.load(address, manifest_sha256))
        except Exception as error:  # noqa: BLE001
            # A release comes from outside and may fail in any way; the worker must outlive that.
            self._refuse(address, error)
            return False
        before, self._serving = self._serving, serving
        self._state = "serving"
        self._serve(serving)
        if before is not None:
            _log.info("swapped: %s after %s", serving.release.id, before.release.id)
        return True

    def _beside(self) -> str:
        return f"; serving {self._serving.release.id}" if self._serving is not None else ""

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

    def _refuse(self, what: str, error: Exception) -> None:
        # An address may carry credentials, and errors quote addresses.
        reason = (str(error) or repr(error)).replace(what, mask(what))
        what = mask(what)
        self._metrics.refused_releases.inc()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._refusals.append({"what": what, "reason": reason, "at": now})
        self._state = f"refused {what}: {reason}{self._beside()}"
        _log.error("refused %s: %s", what, reason)
