"""What the commands that send events have in common: their options, a line of progress, an end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar, get_args

import click

from worker.event_sources import Source
from worker.pacing import Compression, Sent, chunks, hashes_of
from worker.product_lines import Claim

__all__ = ["RFC3339", "count_by_partition", "file_options", "send_options", "send_shown"]

F = TypeVar("F", bound=Callable[..., Any])

_LINE_EVERY_S = 5.0


class _Rfc3339(click.ParamType):
    """A moment; its value is milliseconds since the epoch."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(
                f"{value!r} is no time of RFC 3339 with its zone, such as 2026-10-01T00:00:00Z",
                param,
                ctx,
            )
        return int(moment.timestamp() * 1000)


RFC3339 = _Rfc3339()


def send_options(command: F) -> F:
    """How fast, how many, how compressed, to which broker."""
    for option in (
        click.option("--bootstrap-servers", help="Instead of KAFKA_BOOTSTRAP_SERVERS."),
        click.option(
            "--compression",
            type=click.Choice(get_args(Compression)),
            default="lz4",
            show_default=True,
            help="Codec of the events' batches.",
        ),
        click.option("--limit", type=click.IntRange(0), help="Stop after so many events."),
        click.option(
            "--rate",
            type=click.FloatRange(0, 1e7, min_open=True, max_open=True),
            help="Events a second; as fast as Kafka takes them where not given.",
        ),
    ):
        command = option(command)
    return command


def file_options(command: F) -> F:
    """What is made of a file's products."""
    for option in (
        click.option(
            "--key",
            type=click.Choice(["product_id", "none"]),
            default="product_id",
            show_default=True,
            help="What products of files are keyed by; with none, partitions take turns.",
        ),
        click.option(
            "--claim",
            type=click.Choice(get_args(Claim)),
            default="none",
            show_default=True,
            help="What sellers claim: nothing of ours, the true category, or that with gaps and "
            "errors.",
        ),
    ):
        command = option(command)
    return command


def send_shown(send: Callable[[Callable[[Sent], None]], Coroutine[Any, Any, Sent]]) -> None:
    """Run what sends, with a line of progress; on Ctrl-C say how far it got and exit with 130.

    Args:
        send: is given what to call with the progress.
    """
    progress = _Progress()
    try:
        asyncio.run(send(progress.show))
    except KeyboardInterrupt:
        progress.end("interrupted: ")
        sys.exit(130)
    except BaseException:
        progress.end("failed: ")
        raise
    progress.end("")


async def count_by_partition(source: Source, num_partitions: int) -> Counter[int]:
    """How many events would go to which partition."""
    counts: Counter[int] = Counter()
    async for chunk in chunks(source):
        counts.update(key_hash % num_partitions for key_hash in hashes_of(chunk))
    return counts


class _Progress:
    """One line that is rewritten on a terminal, and a line now and then elsewhere."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._shown_s = time.monotonic()
        self._sent = Sent()

    def show(self, sent: Sent) -> None:
        self._sent = sent
        now_s = time.monotonic()
        if self._rewrites:
            click.echo(f"\r\x1b[K{_line(sent)}", nl=False, err=True)
        elif now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            click.echo(_line(sent), err=True)

    def end(self, prefix: str) -> None:
        start = "\r\x1b[K" if self._rewrites else ""
        click.echo(f"{start}{prefix}{_line(self._sent)}", err=True)


def _line(sent: Sent) -> str:
    waiting = f", waiting {sent.waiting}" if sent.waiting else ""
    return (
        f"{sent.events:,} events sent in {sent.seconds:.1f} s "
        f"({sent.events_per_s:,.0f}/s, {sent.value_bytes / 1e6:,.1f} MB){waiting}"
    )
