"""``sortiment-worker backfill``: sends past products to the backfill topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click

from worker.errors import ConfigError
from worker.event_sources import Limited, Listed, OutEvent, Source
from worker.hostile_records import fault_of
from worker.pacing import Compression, PaceConfig, Sent, send_paced
from worker.partition_counts import partition_counts
from worker.product_lines import Claim, read_events
from worker.sending_commands import (
    RFC3339,
    count_by_partition,
    file_options,
    send_options,
    send_shown,
)
from worker.settings import Settings
from worker.settings_loading import load_settings
from worker.topic_range import TopicRange

__all__ = ["backfill"]


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--since", type=RFC3339, help="Events of the input topic from this time on.")
@click.option("--until", type=RFC3339, help="Events of the input topic before this time.")
@click.option("--dry-run", is_flag=True, help="Count by partition, send nothing.")
@file_options
@send_options
@click.option("--topic", help="Instead of the backfill topic of the settings.")
def backfill(
    files: tuple[Path, ...],
    since: int | None,
    until: int | None,
    dry_run: bool,
    rate: float | None,
    limit: int | None,
    claim: Claim,
    key: str,
    compression: Compression,
    topic: str | None,
    bootstrap_servers: str | None,
) -> None:
    """Send past products to the backfill topic, which workers read while no live product waits.

    They come from FILES (.jsonl or .jsonl.gz) as with `produce`, or, with --since and --until
    (RFC 3339, such as 2026-10-01T00:00:00Z), from the input topic: events of that time, up to
    where the topic ends now, with key, value and headers.
    """
    if bool(files) == (since is not None or until is not None):
        raise click.UsageError("give files, or --since, --until or both")
    settings = load_settings({"bootstrap_servers": bootstrap_servers, "backfill_topic": topic})
    target = _target(settings)

    @asynccontextmanager
    async def source() -> AsyncIterator[Source]:
        if files:
            lines = read_events(files, claim, keyed=key == "product_id")
            yield Limited(Listed(lines), limit)
            return
        async with TopicRange(settings.kafka(), settings.input_topic, since, until) as events:
            yield Limited(_Copies(events), limit)

    async def count() -> None:
        number = (await partition_counts(settings.kafka(), [target]))[target]
        async with source() as events:
            counts = await count_by_partition(events, number)
        for partition in range(number):
            click.echo(f"{target}[{partition}]: {counts[partition]:,}")
        click.echo(f"{counts.total():,} events; nothing was sent")

    async def send(show: Callable[[Sent], None]) -> Sent:
        config = PaceConfig(topic=target, rate_per_s=rate, compression=compression)
        async with source() as events:
            return await send_paced(settings.kafka(), config, events, show)

    if dry_run:
        asyncio.run(count())
    else:
        send_shown(send)


def _target(settings: Settings) -> str:
    if settings.backfill_topic is None:
        raise ConfigError(
            [
                "SORTIMENT_BACKFILL_TOPIC (--topic): no backfill topic is set; name one, and give "
                "it to the workers, or none will read it"
            ]
        )
    return settings.backfill_topic


class _Copies:
    """Events of a topic, to be sent as they are; tells at the end what cannot be."""

    def __init__(self, events: TopicRange) -> None:
        self._events = events
        self._num_faulty = 0

    async def take(self, most: int) -> Sequence[OutEvent]:
        """As ``Source.take``."""
        while records := await self._events.take(most):
            sound = [record for record in records if fault_of(record) is None]
            self._num_faulty += len(records) - len(sound)
            if sound:
                return [OutEvent(record.key, record.value, record.headers) for record in sound]
        if self._num_faulty:
            click.echo(
                f"{self._num_faulty:,} events left out: no client writes such records; workers "
                "have made dead letters of them (bad_header, bad_record, bad_batch)",
                err=True,
            )
            self._num_faulty = 0
        return ()
