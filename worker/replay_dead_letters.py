"""``sortiment-worker replay-dead-letters``: sends the events of dead letters back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import click

from worker.event_sources import Limited
from worker.letters import Choice, Replays, Tally
from worker.pacing import Compression, PaceConfig, Sent, chunks, send_paced
from worker.sending_commands import RFC3339, send_options, send_shown
from worker.settings import Settings
from worker.settings_loading import load_settings
from worker.topic_range import TopicRange
from worker.watch_board import printable

__all__ = ["replay_dead_letters"]


@click.command("replay-dead-letters")
@click.option("--reason", "reasons", multiple=True, help="Only this reason; may come again.")
@click.option("--release", "releases", multiple=True, help="Only of this release; may come again.")
@click.option("--since", type=RFC3339, help="Only letters from this time on.")
@click.option("--until", type=RFC3339, help="Only letters before this time.")
@click.option(
    "--max-replays",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Leave out events that were sent back so often.",
)
@click.option("--dry-run", is_flag=True, help="Count by reason, release and day, send nothing.")
@click.option("--to-topic", help="Send all there, not to the topic that each came from.")
@send_options
def replay_dead_letters(
    reasons: tuple[str, ...],
    releases: tuple[str, ...],
    since: int | None,
    until: int | None,
    max_replays: int,
    dry_run: bool,
    to_topic: str | None,
    rate: float | None,
    limit: int | None,
    compression: Compression,
    bootstrap_servers: str | None,
) -> None:
    """Send the events of dead letters back to the topics that they came from.

    Reads the dead-letter topic once, from its beginning to its end as it is now; times (RFC 3339,
    such as 2026-10-01T00:00:00Z) are those of the letters. The letters stay where they are: the
    same command sends them again.
    """
    settings = load_settings({"bootstrap_servers": bootstrap_servers})
    topics = settings.topics()
    if to_topic is not None and to_topic in set(topics.names) - set(topics.inputs):
        raise click.BadParameter(f"workers write to {to_topic}", param_hint="--to-topic")
    choice = Choice(
        reasons=frozenset(reasons),
        releases=frozenset(releases),
        max_replays=max_replays,
        origins=frozenset(topics.inputs),
        to_topic=to_topic,
    )
    letters = TopicRange(settings.kafka(), topics.dead_letters, since, until)
    replays = Replays(letters, choice)
    config = PaceConfig(
        topic=to_topic or topics.input,
        others=() if to_topic else topics.inputs[1:],
        rate_per_s=rate,
        compression=compression,
        group_id=settings.group_id,
    )

    async def count() -> None:
        async with letters:
            async for _ in chunks(Limited(replays, limit)):
                pass

    async def send(show: Callable[[Sent], None]) -> Sent:
        async with letters:
            return await send_paced(settings.kafka(), config, Limited(replays, limit), show)

    if dry_run:
        asyncio.run(count())
        _show_chosen(replays.tally)
        _show_rest(replays.tally, settings)
    else:
        started = datetime.now(UTC)
        try:
            send_shown(send)
        finally:
            _show_rest(replays.tally, settings)
        click.echo(f"letters that come from now on: --since {started:%Y-%m-%dT%H:%M:%SZ}")
    sys.exit(1 if replays.tally.num_refused else 0)


def _show_chosen(tally: Tally) -> None:
    for kind, count in sorted(tally.chosen.items()):
        click.echo(
            f"{printable(kind.reason, 40)}  {printable(kind.release)}  {kind.day}  {count:,}"
        )
    click.echo(f"{tally.chosen.total():,} events would be sent; nothing was")


def _show_rest(tally: Tally, settings: Settings) -> None:
    """What was not sent, and why."""
    if tally.worn:
        click.echo(f"{tally.worn:,} left out: sent back as often as --max-replays says", err=True)
    if tally.cut:
        click.echo(
            f"{tally.cut:,} cannot be sent: cut for their size, or no single events; the input "
            "topic may still have them, at input-partition and input-offset",
            err=True,
        )
    for topic, count in sorted(tally.foreign.items()):
        click.echo(
            f"{count:,} not sent: they came from topic {printable(topic)}, which is neither "
            "SORTIMENT_INPUT_TOPIC nor SORTIMENT_BACKFILL_TOPIC; name a topic with --to-topic",
            err=True,
        )
    if tally.unreadable:
        click.echo(
            f"{tally.unreadable:,} records on {settings.dead_letters_topic} are no dead letters",
            err=True,
        )
