"""``sortiment-worker watch``: the outputs as a live table, or as lines."""

from __future__ import annotations

import asyncio
import sys
import time

import click
from rich.console import Console
from rich.live import Live

from worker.output_reader import OutputReader
from worker.settings_loading import load_settings
from worker.watch_board import Board, plain_line, printable, render, totals

__all__ = ["watch"]

_POLL_S = 0.25
_REFRESH_PER_S = 4


@click.command()
@click.option("--from-beginning", is_flag=True, help="Also what is kept from before.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many products.")
@click.option("--rows", type=click.IntRange(1, 200), default=15, show_default=True)
@click.option("--plain", is_flag=True, help="Lines, also on a terminal.")
@click.option("--bootstrap-servers", help="Instead of KAFKA_BOOTSTRAP_SERVERS.")
def watch(
    from_beginning: bool, limit: int | None, rows: int, plain: bool, bootstrap_servers: str | None
) -> None:
    """Watch categories, attributes and dead letters as they come, until Ctrl-C.

    Reads without a group, so workers and other readers notice nothing.
    """
    settings = load_settings({"bootstrap_servers": bootstrap_servers})
    reader = OutputReader(settings.kafka(), settings.topics(), from_beginning=from_beginning)
    board = Board(max_rows=rows)
    console = Console(highlight=False)
    where = f"outputs at {settings.bootstrap_servers}"
    try:
        if plain or not console.is_terminal:
            asyncio.run(_lines(reader, board, limit))
        else:
            asyncio.run(_table(reader, board, limit, console, where))
    except KeyboardInterrupt:
        click.echo(totals(board, time.monotonic()), err=True)
        sys.exit(130)
    click.echo(totals(board, time.monotonic()), err=True)


async def _lines(reader: OutputReader, board: Board, limit: int | None) -> None:
    async with reader:
        while limit is None or board.completed < limit:
            dead_before = sum(board.reasons.values())
            for row in board.add(await reader.read(_POLL_S), time.monotonic()):
                click.echo(plain_line(row))
            dead = sum(board.reasons.values())
            if dead > dead_before:
                reasons = ", ".join(printable(reason, 40) for reason in sorted(board.reasons))
                click.echo(f"dead letters: {dead - dead_before:,} more ({reasons})")


async def _table(
    reader: OutputReader, board: Board, limit: int | None, console: Console, where: str
) -> None:
    async with reader:
        with Live(console=console, refresh_per_second=_REFRESH_PER_S) as live:
            while limit is None or board.completed < limit:
                board.add(await reader.read(_POLL_S), time.monotonic())
                live.update(render(board, time.monotonic(), where))
