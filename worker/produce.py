"""``sortiment-worker produce``: sends product files to the input topic."""

from __future__ import annotations

from pathlib import Path

import click

from worker.event_sources import Limited, Listed
from worker.pacing import Compression, PaceConfig, send_paced
from worker.product_lines import Claim, read_events
from worker.sending_commands import file_options, send_options, send_shown
from worker.settings_loading import load_settings

__all__ = ["produce"]


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@file_options
@send_options
@click.option("--topic", help="Instead of the input topic of the settings.")
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
    """Send products from FILES (.jsonl or .jsonl.gz) to the input topic.

    Labels (category, attributes) are not sent. An event's timestamp is the time of its sending.
    """
    settings = load_settings({"bootstrap_servers": bootstrap_servers, "input_topic": topic})
    config = PaceConfig(
        topic=settings.input_topic,
        rate_per_s=rate,
        compression=compression,
        group_id=settings.group_id,
    )
    events = Limited(Listed(read_events(files, claim, keyed=key == "product_id")), limit)
    send_shown(lambda show: send_paced(settings.kafka(), config, events, show))
