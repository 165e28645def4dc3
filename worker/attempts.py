"""How often a worker died with a product in hand: counted in Redis, so that it outlives the worker.

Before a stage that a product could kill the process in, the offsets that go in are noted, and the
note is taken back when they are through. A note that is still there when its partition is opened
was left by a worker that died (or hung) in that stage: each of its offsets has one attempt more.
Without Redis nothing is counted, and a product that kills the process kills it again and again.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import redis
import redis.asyncio
from aiokafka import TopicPartition
from redis import RedisError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.metrics import Metrics
from worker.redis_faults import is_foreign_value, told

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord
    from redis.asyncio.client import Pipeline

__all__ = ["Attempts", "AttemptsConfig"]

_log = logging.getLogger(__name__)

_OFFSET = np.dtype("<i8")
_MAX_DIGITS = 19


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptsConfig:
    """Where attempts are counted.

    Attributes:
        redis_url: None for no counting. May hold a password: never logged.
        redis_timeout_ms: bound on each call; a batch waits for it.
        redis_retry_s: after a failure Redis is left alone for so long.
        ttl_s: what nobody touches disappears.
        prefix: first part of the keys.
    """

    redis_url: str | None = None
    redis_timeout_ms: int = 250
    redis_retry_s: float = 5.0
    ttl_s: int = 7 * 24 * 3600
    prefix: str = "sortiment:attempts"

    def __repr__(self) -> str:
        return f"AttemptsConfig(redis={'set' if self.redis_url else None}, prefix={self.prefix!r})"


class Attempts:
    """Notes and counts of one worker of a group."""

    def __init__(self, config: AttemptsConfig, group_id: str, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._prefix = f"{config.prefix}:{group_id}"
        # A worker that comes back under the same name is another one.
        self._worker = uuid.uuid4().hex
        self._away_until_s = 0.0
        self._is_away = False
        self._noted: dict[str, set[TopicPartition]] = {}  # by stage
        # By stage: left while Redis was away, so that their notes are still there.
        self._owed: defaultdict[str, set[TopicPartition]] = defaultdict(set)
        self._client: redis.asyncio.Redis | None = None
        if config.redis_url is not None:
            timeout_s = config.redis_timeout_ms / 1000
            self._client = redis.asyncio.Redis.from_url(
                config.redis_url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )

    @property
    def state(self) -> str:
        """``not set``, ``in use`` or ``away``."""
        if self._client is None:
            return "not set"
        return "away" if self._is_away else "in use"

    async def opened(self, partition: TopicPartition) -> dict[int, int]:
        """Count what a partition's former owners left noted; attempts by offset, 1 and more."""
        running, counts = self._key(partition, "running"), self._key(partition, "counts")
        notes = await self._run("read", lambda pipeline: pipeline.hgetall(running))
        if notes is None:
            return {}
        own = self._worker.encode()
        left = {field: note for field, note in notes[0].items() if not field.startswith(own)}

        def count(pipeline: Pipeline) -> None:
            for offset in {offset for note in left.values() for offset in _unpacked(note)}:
                pipeline.hincrby(counts, str(offset), 1)
            if left:
                pipeline.hdel(running, *left)
                pipeline.expire(counts, self._config.ttl_s)
            pipeline.hgetall(counts)

        # A death must not count twice because only the answer was lost.
        answers = await self._run("count", count, is_repeatable=False)
        if answers is None:
            return {}
        return _numbers(answers[-1])

    async def enter(
        self, stage: str, records: Iterable[ConsumerRecord[bytes | None, bytes | None]]
    ) -> None:
        """Note events before they enter a stage, which has been left since it was last entered."""
        offsets: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        for record in records:
            offsets[TopicPartition(record.topic, record.partition)].append(record.offset)
        self._noted[stage] = set(offsets)
        owed = self._owed[stage].difference(offsets)  # the others are written over

        def note(pipeline: Pipeline) -> None:
            self._erase(pipeline, {stage: owed})
            for partition, numbers in offsets.items():
                key = self._key(partition, "running")
                packed = np.asarray(numbers, dtype=_OFFSET).tobytes()
                pipeline.hset(key, self._field(stage), packed)
                pipeline.expire(key, self._config.ttl_s)

        if await self._run("note", note) is not None:
            self._owed[stage].clear()

    async def leave(self, stage: str) -> None:
        """Take the note of a stage back: its events are through."""
        self._owed[stage] |= self._noted.pop(stage, set())
        await self._take_back({stage: set(self._owed[stage])})

    async def withdraw(self, partitions: Collection[TopicPartition] | None = None) -> None:
        """Take back all notes, or those of partitions that go to another worker unharmed."""
        for stage, noted in self._noted.items():
            gone = noted if partitions is None else noted.intersection(partitions)
            self._noted[stage] = noted - gone
            self._owed[stage] |= gone
        await self._take_back(
            {
                stage: set(owed) if partitions is None else owed.intersection(partitions)
                for stage, owed in self._owed.items()
            }
        )

    async def _take_back(self, owed: Mapping[str, Collection[TopicPartition]]) -> None:
        if not any(owed.values()):
            return
        if await self._run("take back", lambda pipeline: self._erase(pipeline, owed)) is not None:
            for stage, partitions in owed.items():
                self._owed[stage].difference_update(partitions)

    def _erase(self, pipeline: Pipeline, noted: Mapping[str, Collection[TopicPartition]]) -> None:
        for stage, partitions in noted.items():
            for partition in partitions:
                pipeline.hdel(self._key(partition, "running"), self._field(stage))

    async def forget(self, partition: TopicPartition, offsets: Collection[int]) -> None:
        """Drop the counts of offsets that are delivered."""
        if offsets:
            key = self._key(partition, "counts")
            await self._run("forget", lambda pipeline: pipeline.hdel(key, *map(str, offsets)))

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.aclose()

    def _key(self, partition: TopicPartition, what: str) -> str:
        return f"{self._prefix}:{partition.topic}:{partition.partition}:{what}"

    def _field(self, stage: str) -> str:
        return f"{self._worker}:{stage}"

    async def _run(
        self, what: str, fill: Callable[[Pipeline], object], *, is_repeatable: bool = True
    ) -> list[Any] | None:
        """One pipeline, one round trip; None where Redis does not answer, or refuses a command."""
        if self._client is None or time.monotonic() < self._away_until_s:
            return None
        try:
            async with asyncio.timeout(2 * self._config.redis_timeout_ms / 1000):  # names resolve
                try:
                    answers, foreign = await self._execute(self._client, fill)
                except redis.ConnectionError:
                    if not is_repeatable:
                        raise
                    # One that was dropped while idle is only now found out; the others may be, too.
                    await self._client.connection_pool.disconnect(inuse_connections=False)
                    answers, foreign = await self._execute(self._client, fill)
                if foreign:
                    await self._client.delete(*foreign)
                    answers, _ = await self._execute(self._client, fill)
            refusals = (each for each in answers if isinstance(each, RedisError))
            if (refusal := next(refusals, None)) is not None:
                self._failed(what, refusal)
                return None
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(what, error)
            return None
        # Not by a late answer from before the failure: nobody is asked for some time after that.
        if self._is_away and time.monotonic() >= self._away_until_s:
            self._is_away = False
            _log.warning("Redis is back: attempts are counted again")
        return answers

    async def _execute(
        self, client: redis.asyncio.Redis, fill: Callable[[Pipeline], object]
    ) -> tuple[list[Any], set[str]]:
        """Answers, refusals among them; and the keys of ours that hold what is not ours."""
        async with client.pipeline(transaction=False) as pipeline:
            fill(pipeline)
            commands = list(pipeline.command_stack)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        foreign = {
            str(arguments[1])
            for (arguments, _), answer in zip(commands, answers, strict=True)
            if is_foreign_value(answer)
        }
        if foreign:
            self._metrics.redis_foreign_values.inc(len(foreign))
            _log.warning(
                "%d keys in Redis hold no attempts: deleted; first: %s", len(foreign), min(foreign)
            )
        return answers, foreign

    def _failed(self, what: str, error: Exception) -> None:
        self._metrics.redis_errors.inc()
        self._away_until_s = time.monotonic() + self._config.redis_retry_s
        if not self._is_away:
            self._is_away = True
            _log.warning(
                "Redis could not %s attempts (%s): not counting for now, next try in %g s; a "
                "product that kills the process would not be found out",
                what,
                told(error),
                self._config.redis_retry_s,
            )


def _numbers(counts: Mapping[bytes, bytes]) -> dict[int, int]:
    """Attempts by offset; what is no number of 64 bits is not ours."""
    return {
        int(offset): int(number)
        for offset, number in counts.items()
        if all(text.isdigit() and len(text) <= _MAX_DIGITS for text in (offset, number))
    }


def _unpacked(note: bytes) -> list[int]:
    """Offsets of a note; none where it is not one of ours."""
    if len(note) % _OFFSET.itemsize:
        return []
    offsets: list[int] = np.frombuffer(note, dtype=_OFFSET).tolist()
    return offsets
