"""`make chaos`: three workers on three brokers, products coming in, and faults every few seconds.

Each event must come out whole, once and, where keys come again, in the order of its key, for
readers of committed events during the run and after it. Exit status 1 where one of these does not
hold.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import click
import orjson

from demo.catalog.build import write_catalog
from demo.narration import Narrator
from demo.stops import Stopped, Stops
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from tests.chaos.cells import choose, split
from tests.chaos.feed import load_products
from tests.chaos.report import as_json, table, write_page
from tests.chaos.run import Bench, CellResult, run_cell
from worker.local.kafka_cluster import start_cluster

_LOGS = Path(__file__).parents[2] / ".run" / "chaos"
_KEPT_LOGS = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--products", default=100_000, show_default=True, help="Over all cells together.")
@click.option("--seed", default=1, show_default=True, help="Of who is hit when, for how long.")
@click.option("--seconds", default=60.0, show_default=True, help="How long products come in.")
@click.option("--cells", default="", help="Only those with one of these texts in their name.")
@click.option(
    "--delivery",
    type=click.Choice(["exactly_once", "at_least_once"]),
    default="exactly_once",
    show_default=True,
    help="Of the workers. At least once must fail: outputs come twice.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--page/--no-page", default=False, help="Write docs/results/chaos.md.")
def main(
    products: int,
    seed: int,
    seconds: float,
    cells: str,
    delivery: str,
    json_path: Path | None,
    page: bool,
) -> None:
    """Account for every product under every kind of fault."""
    try:
        chosen = choose(cells)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if products < len(chosen):
        raise click.BadParameter(f"at least {len(chosen)} products: one for each cell")
    narrator = Narrator(len(chosen) + 1)
    logs = _log_directory()
    results: list[CellResult] = []
    try:
        with Stops(), tempfile.TemporaryDirectory(prefix="sortiment-chaos-") as scratch:
            narrator.step("Three brokers")
            catalog = write_catalog(Path(scratch, "catalog"))
            taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
            release = noop_release(Path(scratch, "release"), taxonomy).directory
            with start_cluster(os.environ, logs=logs, say=narrator.say) as cluster:
                narrator.say(f"{cluster.description}; seed {seed}; logs: {logs}")
                bench = Bench(
                    cluster=cluster,
                    release=release,
                    products=load_products(catalog),
                    logs=logs,
                    settings={"delivery": delivery},
                    seed=seed,
                    seconds=seconds,
                )
                for cell, count in zip(chosen, split(products, chosen), strict=True):
                    narrator.step(f"{cell.name}: {count:,} products")
                    results.append(run_cell(bench, cell, count))
                    _tell(narrator, results[-1])
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    text = table(results)
    narrator.console.print(f"\n{text}\n", markup=False, soft_wrap=True)
    if page:
        command = _command(products, seed, seconds, cells, delivery)
        written = write_page(
            text,
            command=command,
            brokers=cluster.description,
            seed=seed,
            seconds=seconds,
            delivery=delivery,
        )
        narrator.say(f"written: {written}")
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(as_json(results), option=orjson.OPT_INDENT_2))
    if not all(result.verdict.is_clean for result in results):
        narrator.say(f"FAILED; who was hit when, and what the workers said: {logs}")
        sys.exit(1)


def _tell(narrator: Narrator, result: CellResult) -> None:
    verdict = result.verdict
    narrator.say(
        f"{result.faults} faults, {result.seconds:.0f} s: {len(verdict.lost)} lost, "
        f"{len(verdict.twice)} twice, {len(verdict.out_of_order)} out of order"
    )
    for line in (*result.oddities, *result.details):
        narrator.say(f"  {line}")


def _command(products: int, seed: int, seconds: float, cells: str, delivery: str) -> str:
    extra = [
        f"--{name} {value}"
        for name, value, default in (
            ("seconds", f"{seconds:g}", "60"),
            ("cells", cells, ""),
            ("delivery", delivery, "exactly_once"),
        )
        if value != default
    ]
    command = f"make chaos SEED={seed} PRODUCTS={products}"
    return f'{command} ARGS="{" ".join(extra)}"' if extra else command


def _log_directory() -> Path:
    _LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(_LOGS.iterdir(), key=lambda path: path.stat().st_mtime)[: -_KEPT_LOGS + 1]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_LOGS, prefix="run-"))


if __name__ == "__main__":
    main()
