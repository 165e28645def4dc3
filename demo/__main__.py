"""`python -m demo`: from nothing to products categorized through Kafka, and figures of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demo.stops import Stopped, Stops
from models.errors import SortimentError

if TYPE_CHECKING:
    from demo.services import BrokerChoice


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--broker",
    type=click.Choice(["auto", "given", "kafka", "embedded"]),
    default="auto",
    show_default=True,
    envvar="BROKER",
    help="given: KAFKA_BOOTSTRAP_SERVERS; kafka: Apache Kafka by Maven or Docker; embedded: a mock "
    "cluster in a process; auto: the first of these that is there.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="DATA",
    help="Folder of a data set.  [default: the project's sample catalog]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    envvar="LIMIT",
    help="Training products at most.  [default: 20000]",
)
@click.option(
    "--products",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    envvar="PRODUCTS",
    help="Held-out products to send.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="JSON",
    help="Also write the summary here.",
)
def demo(
    broker: BrokerChoice,
    data: Path | None,
    limit: int | None,
    products: int,
    json_path: Path | None,
) -> None:
    """Train on a catalog, start broker, Redis and a worker, and stream held-out products."""
    try:
        with Stops() as stops:
            # Torch takes seconds to import: not for --help, and not before Ctrl-C is minded.
            from demo.run import DemoConfig, run_demo

            config = DemoConfig(
                broker=broker,
                data=data,
                limit=limit,
                products=products,
                json_path=json_path,
            )
            run_demo(config, stops)
    except Stopped as stopped:
        click.echo(f"\nStopped by {stopped}; everything that was started has ended.")
        sys.exit(stopped.exit_code)


def main() -> None:
    """Entry point. Exit code: 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped."""
    try:
        demo.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SortimentError as error:
        click.echo(f"\nThe demo failed: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
