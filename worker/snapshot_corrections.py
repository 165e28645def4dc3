"""``sortiment-worker snapshot-corrections``: the corrections topic as a file to train on."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson

from worker.corrections import Corrections
from worker.errors import SortimentError
from worker.sending_commands import RFC3339
from worker.settings_loading import load_settings
from worker.topic_range import TopicRange
from worker.watch_board import printable

__all__ = ["snapshot_corrections"]

_CHUNK = 1_000


@click.command("snapshot-corrections")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--since", type=RFC3339, help="Only corrections from this time on.")
@click.option("--until", type=RFC3339, help="Only corrections before this time.")
@click.option("--topic", help="Instead of SORTIMENT_CORRECTIONS_TOPIC.")
@click.option("--bootstrap-servers", help="Instead of KAFKA_BOOTSTRAP_SERVERS.")
def snapshot_corrections(
    out: Path,
    since: int | None,
    until: int | None,
    topic: str | None,
    bootstrap_servers: str | None,
) -> None:
    """Write the corrections topic as it is now to OUT, a .jsonl file for `sortiment-train refresh`.

    Reads each partition once, without a group, committed events only, from its beginning up to
    where it ends when the command starts. Of each product the last correction counts. Beside OUT,
    OUT.offsets.json says which offsets it holds. Both files appear whole, or not at all.
    """
    if out.suffix != ".jsonl":
        raise click.BadParameter(f"{out.name} must end with .jsonl", param_hint="OUT")
    settings = load_settings({"bootstrap_servers": bootstrap_servers, "corrections_topic": topic})
    corrections = Corrections()
    try:
        taken_at = datetime.now(UTC)
        events = TopicRange(settings.kafka(), settings.corrections_topic, since, until)
        try:
            asyncio.run(_read(events, corrections))
        except OSError as error:
            raise SortimentError(
                f"the temporary file for the corrections cannot be written: {error}; make room in "
                f"{tempfile.gettempdir()}, or name another folder by TMPDIR"
            ) from error
        document = {
            "schema": "sortiment.corrections-snapshot.v1",
            "topic": settings.corrections_topic,
            "taken_at": taken_at.isoformat(timespec="seconds"),
            "since_ms": since,
            "until_ms": until,
            "partitions": {
                str(partition): {"first_offset": first, "end_offset": end}
                for partition, (first, end) in sorted(events.spans.items())
            },
            "events": corrections.events,
            "corrections": len(corrections),
            "replaced": corrections.replaced,
            "withdrawn": corrections.withdrawn,
            "refused": corrections.num_refused,
        }
        _write(out, corrections, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    finally:
        corrections.close()
    for each in corrections.refused:
        click.echo(
            f"{settings.corrections_topic}[{each.partition}]@{each.offset} is no correction: "
            f"{printable(each.reason, 200)}",
            err=True,
        )
    if corrections.num_refused:
        click.echo(f"{corrections.num_refused:,} events are no corrections: left out", err=True)
    click.echo(
        f"{len(corrections):,} corrections of {corrections.events:,} events "
        f"({corrections.replaced:,} replaced, {corrections.withdrawn:,} withdrawn): {out}"
    )


async def _read(events: TopicRange, corrections: Corrections) -> None:
    async with events:
        while records := await events.take(_CHUNK):
            for record in records:
                corrections.add(record)


def _write(out: Path, corrections: Corrections, offsets: bytes) -> None:
    """Both files, synced before the first takes its name; the offsets take theirs first."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            beside = out.with_name(f"{out.name}.offsets.json")
            renamed = [
                (stack.enter_context(_synced(path, chunks)), path)
                for path, chunks in ((beside, [offsets]), (out, corrections.lines()))
            ]
            for temporary, path in renamed:
                temporary.replace(path)
    except OSError as error:
        raise SortimentError(f"{out} cannot be written: {error}") from error


@contextmanager
def _synced(path: Path, chunks: Iterable[bytes]) -> Iterator[Path]:
    """A file beside ``path``, on the disk; removed at the end where it has not been renamed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        # Trainers read it: mkstemp's 0600 is for secrets.
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
