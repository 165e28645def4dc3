"""`make bench-swaps`: releases swapped under full load; nothing lost, no pause, no growth."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

import click
import orjson

from benchmarks.contention import code_digest
from benchmarks.stream.inputs import Topics, load_events
from benchmarks.swaps.report import as_json, table, write_page
from benchmarks.swaps.run import ROWS, Bench, Result, measure
from benchmarks.swaps.versions import as_version
from demo.narration import Narrator
from demo.stops import Stopped, Stops
from demo.trained import CACHE, ROOT, Training, prepare_data, train
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from models.threads import wait_passively
from worker.local.kafka import start_kafka
from worker.local.redis import start_redis

_MEASURED = ("kernels", "models", "worker", "benchmarks")
_EVENTS = 20_000  # sent again and again


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set of the products; the sample catalog where not given.",
)
@click.option(
    "--release",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The trained one; where not given, trained on the sample catalog as the demo does.",
)
@click.option("--swaps", default=50, show_default=True, type=click.IntRange(1))
@click.option(
    "--load-s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(30.0),
    help="Time under load before the first swap, and after the last.",
)
@click.option("--rows", default=",".join(row.name for row in ROWS), help="Only these.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep them here.")
@click.option(
    "--page/--no-page", default=True, show_default=True, help="Write benchmarks/results/."
)
def main(
    data: Path | None,
    release: Path | None,
    swaps: int,
    load_s: float,
    rows: str,
    json_path: Path | None,
    logs: Path | None,
    page: bool,
) -> None:
    """Swap releases in a worker under full load. Exit status 1 where a promise is not kept."""
    wait_passively()
    chosen = [row for row in ROWS if row.name in rows.split(",")]
    if not chosen:
        raise click.BadParameter(f"--rows: there are {', '.join(row.name for row in ROWS)}")
    narrator = Narrator(3 + len(chosen))
    results: list[Result] = []
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        # Beside the demo's releases, so that links to their files can be made.
        with Stops(), tempfile.TemporaryDirectory(prefix=".swaps-", dir=CACHE) as scratch:
            directory = Path(scratch)
            narrator.step("Data and releases")
            catalog = prepare_data(narrator)
            source = data.resolve() if data is not None else catalog
            kinds = {}
            if any(row.release == "noop" for row in chosen):
                taxonomy = load_taxonomy(source / "taxonomy.json.gz")
                kinds["noop"] = noop_release(directory / "noop", taxonomy).directory
            if any(row.release == "model" for row in chosen):
                log = directory / "fit.log"
                trained = release or train(Training(catalog, None), log, narrator)
                kinds["model"] = trained.resolve()
            versions = {
                kind: [
                    as_version(original, directory / "versions" / kind / str(number), str(number))
                    for number in range(1, swaps + 2)
                ]
                for kind, original in kinds.items()
            }
            narrator.step("Broker and Redis")
            with (
                start_kafka(os.environ, say=narrator.say) as kafka,
                start_redis(os.environ) as redis,
            ):
                narrator.say(kafka.description)
                if logs is not None:
                    logs.mkdir(parents=True, exist_ok=True)
                bench = Bench(
                    bootstrap_servers=kafka.bootstrap_servers,
                    redis_url=redis.url,
                    topics=Topics(kafka.bootstrap_servers),
                    events=load_events(source, _EVENTS),
                    versions=versions,
                    load_s=load_s,
                    directory=logs.resolve() if logs is not None else directory,
                    say=narrator.say,
                )
                code = code_digest(ROOT, _MEASURED)
                for row in chosen:
                    narrator.step(f"{row.name}: {row.description}, {swaps} swaps under full load")
                    results.append(measure(bench, row))
                    print(f"\n{table(results[-1:])}\n")
                    if code_digest(ROOT, _MEASURED) != code:
                        raise click.ClickException("the code changed while it was measured")
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    narrator.step("What came of it")
    text = table(results)
    print(f"\n{text}\n")
    if page:
        shown = shlex.join(["python", "-m", "benchmarks.swaps", *sys.argv[1:]])
        name = "the sample catalog" if data is None else data.resolve().name
        written = write_page(
            text, command=shown, broker=kafka.description, data=name, load_s=load_s
        )
        print(f"written: {written}")
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(as_json(results), option=orjson.OPT_INDENT_2))
    if any(result.failures() for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
