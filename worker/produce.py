"""``sortiment-worker produce``: replays product files onto the input topic."""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import islice
from pathlib import Path
from typing import get_args

import click

from worker.product_lines import Claim, read_events
from worker.replay import Compression, ReplayConfig, Replayed, replay
from worker.settings_loading import load_settings

__all__ = ["produce"]

_LINE_EVERY_S = 5.0


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1e7, min_open=True, max_open=True),
    help="Products a second; as fast as Kafka takes them where not given.",
)
@click.option("--limit", type=click.IntRange(0), help="Stop after so many products.")
@click.option(
    "--claim",
    type=click.Choice(get_args(Claim)),
    default="none",
    show_default=True,
    help="What sellers claim: nothing of ours, the true category, or that with gaps and errors.",
)
@click.option(
    "--key",
    type=click.Choice(["product_id", "none"]),
    default="product_id",
    show_default=True,
    help="What events are keyed by; with none, partitions take turns.",
)
@click.option(
    "--compression",
    type=click.Choice(get_args(Compression)),
    default="lz4",
    show_default=True,
    help="Codec of the events' batches.",
)
@click.option("--topic", help="Instead of the input topic of the settings.")
@click.option("--bootstrap-servers", help="Instead of KAFKA_BOOTSTRAP_SERVERS.")
def produce(
    files: tuple[Path, ...],
    rate: float | None,
    limit: int | None,
    claim: Claim,
    key: str,
    compression: Compression,
    topic: str | None,
    bootstrap_servers: str | None,
) -> None:
    """Replay products from FILES (.jsonl or .jsonl.gz) onto the input topic.

    Labels (category, attributes) are not sent. An event's timestamp is the time of its sending.
    """
    settings = load_settings({"bootstrap_servers": bootstrap_servers, "input_topic": topic})
    config = ReplayConfig(
        topic=settings.input_topic,
        rate_per_s=rate,
        compression=compression,
        group_id=settings.group_id,
    )
    events = islice(read_events(files, claim, keyed=key == "product_id"), limit)
    progress = _Progress()
    try:
        asyncio.run(replay(settings.kafka(), config, events, progress.show))
    except KeyboardInterrupt:
        progress.end("interrupted: ")
        sys.exit(130)
    progress.end("")


class _Progress:
    """One line that is rewritten on a terminal, and a line now and then elsewhere."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._shown_s = time.monotonic()
        self._replayed = Replayed()

    def show(self, replayed: Replayed) -> None:
        self._replayed = replayed
        now_s = time.monotonic()
        if self._rewrites:
            click.echo(f"\r\x1b[K{_line(replayed)}", nl=False, err=True)
        elif now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            click.echo(_line(replayed), err=True)

    def end(self, prefix: str) -> None:
        start = "\r\x1b[K" if self._rewrites else ""
        click.echo(f"{start}{prefix}{_line(self._replayed)}", err=True)


def _line(replayed: Replayed) -> str:
    waiting = f", waiting {replayed.waiting}" if replayed.waiting else ""
    return (
        f"{replayed.events:,} products sent in {replayed.seconds:.1f} s "
        f"({replayed.events_per_s:,.0f}/s, {replayed.value_bytes / 1e6:,.1f} MB){waiting}"
    )
