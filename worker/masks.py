"""Masks where the model needs them, looked up by level: device, memory, Redis, compiled.

A release carries its taxonomy, so Redis is a cache and never a single point of failure. Keys are
content-addressed (taxonomy, label space, category), so an entry is never stale, only unused.
Runs on the model thread: one pipelined read for all that a batch lacks, bounded by a time-out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import redis
import torch
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.device_masks import DeviceMasks
from models.labels import LabelSpace, pack_mask, unpack_mask
from models.taxonomy import Taxonomy, compile_mask
from worker.metrics import Metrics
from worker.redis_faults import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MaskCache", "MaskCacheConfig", "MaskMemory", "RedisMasks"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

# Connecting takes a few answers; and a thousand masks at a start take longer than one.
_MOST_TIMEOUTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskCacheConfig:
    """Where masks are kept.

    Attributes:
        redis_url: None for no Redis. May hold a password: never logged.
        redis_timeout_ms: how long Redis may be silent; a call that is never silent and yet not
            answered is given up after ten times as long. The model thread waits for it.
        redis_retry_s: after a failure Redis is left alone for so long.
        redis_ttl_s: entries that nobody writes again disappear; 0 keeps them.
        prefix: first part of the keys.
        max_memory_bytes: bound on the masks kept in process memory.
    """

    redis_url: str | None = None
    redis_timeout_ms: int = 50
    redis_retry_s: float = 5.0
    redis_ttl_s: int = 30 * 24 * 3600
    prefix: str = "sortiment:mask"
    max_memory_bytes: int = 256 * 1024 * 1024

    def __repr__(self) -> str:
        return f"MaskCacheConfig(redis={'set' if self.redis_url else None}, prefix={self.prefix!r})"


class MaskMemory:
    """Packed masks by key, least recently used first out.

    Outlives a release: the next one is warmed on the loading thread while the model thread reads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, NDArray[np.uint32]] = OrderedDict()

    def get(self, key: str) -> NDArray[np.uint32] | None:
        """The mask, or None."""
        with self._lock:
            mask = self._entries.get(key)
            if mask is not None:
                self._entries.move_to_end(key)
            return mask

    def put(self, key: str, mask: NDArray[np.uint32]) -> None:
        """Keep a mask; the oldest go when the bound is reached."""
        with self._lock:
            previous = self._entries.pop(key, None)
            if previous is not None:
                self._bytes -= previous.nbytes
            self._entries[key] = mask
            self._bytes += mask.nbytes
            while self._bytes > self._max_bytes and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.nbytes


class RedisMasks:
    """Packed masks in Redis. Every failure is a miss, counted and said once per outage.

    One that answers and takes no writes (full, a replica) goes on being read.
    """

    def __init__(self, config: MaskCacheConfig, metrics: Metrics) -> None:
        assert config.redis_url is not None
        timeout_s = config.redis_timeout_ms / 1000
        self._client = redis.Redis.from_url(
            config.redis_url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # One attempt: a retry would double what the model thread waits.
            retry=Retry(NoBackoff(), 0),
        )
        self._config = config
        self._metrics = metrics
        self._most_s = _MOST_TIMEOUTS * timeout_s
        self._given_up: threading.Thread | None = None
        self._away_until_s = 0.0
        self._refuses_until_s = 0.0
        self._refuses_writes = False
        self.is_away = False

    @property
    def state(self) -> str:
        """``in use``, ``away`` or ``takes no writes``."""
        if self.is_away:
            return "away"
        return "takes no writes" if self._refuses_writes else "in use"

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """One answer a key; all None while Redis is away."""
        if time.monotonic() < self._away_until_s or self._is_hanging:
            return [None] * len(keys)
        try:
            answers: list[bytes | None] = self._within(lambda: self._client.mget(keys))  # type: ignore[arg-type,return-value]
        except redis.RedisError as error:
            self._failed("read", error)
            return [None] * len(keys)
        self._back()
        return answers

    def write(self, masks: dict[str, bytes]) -> None:
        """Keep masks for the other workers, in one pipeline."""
        rests_until_s = max(self._away_until_s, self._refuses_until_s)
        if time.monotonic() < rests_until_s or self._is_hanging:
            return
        try:
            self._within(lambda: self._set(masks))
        except redis.ResponseError as error:
            self._refused(error)
        except redis.RedisError as error:
            self._failed("write", error)
        else:
            if self._refuses_writes:
                _log.info("Redis takes writes again")
            self._refuses_writes = False

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _set(self, masks: dict[str, bytes]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for key, packed in masks.items():
                pipeline.set(key, packed, ex=self._config.redis_ttl_s or None)
            pipeline.execute()

    @property
    def _is_hanging(self) -> bool:
        return self._given_up is not None and self._given_up.is_alive()

    def _within(self, call: Callable[[], T]) -> T:
        """What a call gives, in bounded time: a socket's time-out bounds every piece of an answer.

        Raises:
            redis.RedisError: as the call, or it takes too long.
        """
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                answer.set_exception(error)

        calling = threading.Thread(target=run, name="redis masks", daemon=True)
        calling.start()
        try:
            return answer.result(self._most_s)
        except TimeoutError:
            self._given_up = calling
            raise redis.TimeoutError(f"not answered within {self._most_s:g} s") from None

    def _failed(self, what: str, error: redis.RedisError) -> None:
        self._metrics.redis_errors.inc()
        self._away_until_s = time.monotonic() + self._config.redis_retry_s
        if not self.is_away:
            _log.warning(
                "Redis %s failed (%s): going on from memory and the release, next try in %g s",
                what,
                told(error),
                self._config.redis_retry_s,
            )
        self.is_away = True

    def _refused(self, error: redis.ResponseError) -> None:
        self._metrics.redis_errors.inc()
        self._refuses_until_s = time.monotonic() + self._config.redis_retry_s
        if not self._refuses_writes:
            _log.warning(
                "Redis takes no masks (%s): those that it has are read, next try in %g s",
                told(error),
                self._config.redis_retry_s,
            )
        self._refuses_writes = True

    def _back(self) -> None:
        if self.is_away:
            _log.info("Redis answers again")
        self.is_away = False


class MaskCache:
    """The masks of one release, growing on the device as categories are met.

    Fulfils ``models.predict.MaskSource``.

    Args:
        taxonomy: the release's.
        labels: the attribute model's label space.
        device: where the attribute head runs.
        memory: shared by all releases of the process.
        remote: None for no Redis.
        taxonomy_sha256: of the release's taxonomy file: two taxonomies may share a version.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        taxonomy_sha256: str,
        labels: LabelSpace,
        device: torch.device,
        memory: MaskMemory,
        remote: RedisMasks | None,
        config: MaskCacheConfig,
        metrics: Metrics,
    ) -> None:
        self._taxonomy = taxonomy
        self._labels = labels
        self._device = device
        self._memory = memory
        self._remote = remote
        self._lookups = metrics.mask_lookups
        self._foreign = metrics.redis_foreign_values
        self._ids = tuple(taxonomy.categories)
        self._key_start = (
            f"{config.prefix}:{taxonomy.version}-{taxonomy_sha256[:16]}:{labels.hash}:"
        )
        self._row_of = np.full(len(self._ids), -1, dtype=np.int64)
        self._indptr = np.zeros(1, dtype=np.int64)
        self._indices = torch.empty(0, dtype=torch.int64, device=device)
        self._table = DeviceMasks(torch.zeros(1, dtype=torch.int64, device=device), self._indices)

    def lookup(self, taxonomy_rows: NDArray[np.int64]) -> tuple[DeviceMasks, NDArray[np.int64]]:
        """Masks of categories.

        Args:
            taxonomy_rows: [B], int64, positions in ``taxonomy.categories``; -1 for none.

        Returns:
            The table on the device, and the row in it of each, [B], int64, -1 for none.
        """
        known = taxonomy_rows >= 0
        rows = np.where(known, self._row_of[taxonomy_rows], -1)
        missing = np.unique(taxonomy_rows[known & (rows < 0)])
        if len(missing):
            self._admit(missing)
            rows = np.where(known, self._row_of[taxonomy_rows], -1)
        self._lookups.labels("device").inc(int(known.sum()) - len(missing))
        return self._table, rows

    def warm(self, categories: Sequence[str], chunk: int = 1000) -> None:
        """Bring masks onto the device before the first product asks for them."""
        position = {category: row for row, category in enumerate(self._ids)}
        rows = np.array([position[category] for category in categories], dtype=np.int64)
        for start in range(0, len(rows), chunk):
            self.lookup(rows[start : start + chunk])

    @property
    def num_resident(self) -> int:
        """Categories whose mask is on the device."""
        return len(self._indptr) - 1

    def _admit(self, missing: NDArray[np.int64]) -> None:
        categories = [self._ids[row] for row in missing]
        keys = [self._key_start + category for category in categories]
        masks = [self._memory.get(key) for key in keys]
        self._lookups.labels("memory").inc(sum(mask is not None for mask in masks))
        absent = [index for index, mask in enumerate(masks) if mask is None]
        if absent and self._remote is not None:
            asked = [keys[index] for index in absent]
            unpacked = self._unpacked(asked, self._remote.read(asked))
            for index, read_mask in zip(absent, unpacked, strict=True):
                masks[index] = read_mask
            found = sum(masks[index] is not None for index in absent)
            self._lookups.labels("redis").inc(found)
        compiled: dict[str, bytes] = {}
        complete: list[NDArray[np.uint32]] = []
        for category, key, found_mask in zip(categories, keys, masks, strict=True):
            mask = found_mask
            if mask is None:
                mask = compile_mask(self._taxonomy, category, self._labels)
                compiled[key] = pack_mask(mask)
            self._memory.put(key, mask)
            complete.append(mask)
        self._lookups.labels("compiled").inc(len(compiled))
        if compiled and self._remote is not None:
            self._remote.write(compiled)
        self._grow(missing, complete)

    def _unpacked(
        self, keys: Sequence[str], answers: Sequence[bytes | None]
    ) -> list[NDArray[np.uint32] | None]:
        """Masks of Redis's answers; None for none, and for what is not one."""
        masks: list[NDArray[np.uint32] | None] = []
        foreign = []
        for key, packed in zip(keys, answers, strict=True):
            mask = None
            if packed is not None:
                try:
                    mask = unpack_mask(packed, len(self._labels))
                except ValueError as error:
                    foreign.append(f"{key} ({error})")
            masks.append(mask)
        if foreign:
            self._foreign.inc(len(foreign))
            _log.warning(
                "%d masks in Redis are none: compiled and written anew; first: %s",
                len(foreign),
                foreign[0],
            )
        return masks

    def _grow(self, missing: NDArray[np.int64], masks: list[NDArray[np.uint32]]) -> None:
        first = self.num_resident
        ends = self._indptr[-1] + np.cumsum([len(mask) for mask in masks], dtype=np.int64)
        indptr = np.concatenate([self._indptr, ends])
        added = torch.from_numpy(np.concatenate(masks).astype(np.int64)).to(self._device)
        indices = torch.cat([self._indices, added])
        table = DeviceMasks(torch.from_numpy(indptr).to(self._device), indices)
        # Only now: any line above may run out of memory, and the batch is then tried in halves.
        self._indptr, self._indices, self._table = indptr, indices, table
        self._row_of[missing] = np.arange(first, first + len(missing))
