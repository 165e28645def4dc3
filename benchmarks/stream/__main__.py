"""`make bench-stream`: the worker against plain Faust and against its model alone."""

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
from benchmarks.stream.report import as_json, table, write_page
from benchmarks.stream.rows import ROWS, Bench, Sample
from demo.narration import Narrator
from demo.trained import ROOT, Training, prepare_data, train
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from models.threads import wait_passively
from worker.local.kafka import start_kafka
from worker.local.redis import start_redis

# As the demo trains on real data: minutes, not hours, on two cores.
_TRAIN_LIMIT = 20_000
_MEASURED = ("kernels", "models", "worker", "benchmarks")
# Slower rows get a part of the input, so that each runs for some ten seconds.
_SHARE = {
    "worker_noop": 1,
    "worker_noop_at_least_once": 1,
    "faust_take": 5,
    "worker_model": 1,
    "offline_model": 1,
    "faust_event": 5,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set; the sample catalog where not given.",
)
@click.option(
    "--release",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="For the model's rows; trained as the demo does where not given.",
)
@click.option("--products", default=200_000, show_default=True, help="For the no-op rows.")
@click.option("--model-products", default=6_000, show_default=True, help="For the model's rows.")
@click.option("--runs", default=3, show_default=True, help="Of each row, in turn; median shown.")
@click.option("--rows", default=",".join(row.name for row in ROWS), help="Only these.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--page/--no-page", default=True, show_default=True, help="Write benchmarks/results/."
)
def main(
    data: Path | None,
    release: Path | None,
    products: int,
    model_products: int,
    runs: int,
    rows: str,
    json_path: Path | None,
    page: bool,
) -> None:
    """Products per second, all rows against one real broker."""
    wait_passively()  # for all rows alike: every one is a child of this process
    chosen = [row for row in ROWS if row.name in rows.split(",")]
    narrator = Narrator(3)
    with tempfile.TemporaryDirectory(prefix="sortiment-bench-") as scratch:
        directory = Path(scratch)
        narrator.step("Data and releases")
        source = data.resolve() if data is not None else prepare_data(narrator)
        taxonomy = load_taxonomy(source / "taxonomy.json.gz")
        releases = {"noop": noop_release(directory / "noop", taxonomy).directory}
        if release is not None:
            releases["model"] = release.resolve()
        elif any(row.release == "model" for row in chosen):
            limit = None if data is None else _TRAIN_LIMIT
            releases["model"] = train(Training(source, limit), directory / "training.log", narrator)
        totals = {"noop": products, "model": model_products}
        counts = {row.name: totals[row.release] // _SHARE[row.name] for row in chosen}
        events = load_events(source, max(counts.values()))
        events_file = directory / "events.jsonl"
        events_file.write_bytes(b"".join(e.value + b"\n" for e in events[:model_products]))

        narrator.step("Broker and Redis")
        with (
            start_kafka(os.environ, say=narrator.say) as kafka,
            start_redis(os.environ) as redis,
        ):
            narrator.say(kafka.description)
            topics = Topics(kafka.bootstrap_servers)
            bench = Bench(
                kafka.bootstrap_servers,
                redis.url,
                topics,
                {row.name: events[: counts[row.name]] for row in chosen},
                releases,
                events_file,
                directory,
            )
            narrator.step("Measuring")
            samples: dict[str, list[Sample]] = {row.name: [] for row in chosen}
            code = code_digest(ROOT, _MEASURED)
            for run in range(runs):
                for row in chosen:
                    sample = row.measure(bench, row)
                    samples[row.name].append(sample)
                    narrator.say(
                        f"run {run + 1}: {row.name} {sample.products_per_s:,.0f} products/s"
                    )
                    if code_digest(ROOT, _MEASURED) != code:
                        raise click.ClickException(
                            "the code changed while it was measured: the rows are not comparable"
                        )
    text = table(samples, counts)
    print(f"\n{text}\n")
    if page:
        shown = shlex.join(["python", "-m", "benchmarks.stream", *sys.argv[1:]])
        name = "the sample catalog" if data is None else data.resolve().name
        print(f"written: {write_page(text, command=shown, broker=kafka.description, data=name)}")
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(as_json(samples, counts), option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
