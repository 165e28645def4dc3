"""`make soak`: two workers for an hour, faults now and then; nothing lost, and nothing grows.

Exit status 1 where one of these does not hold.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click
import orjson

from benchmarks.swaps.versions import as_version
from demo.catalog.build import write_catalog
from demo.narration import Narrator
from demo.stops import Stopped, Stops
from models.taxonomy import load_taxonomy
from tests.chaos.feed import load_products
from tests.soak.plan import plan
from tests.soak.report import as_json, table, write_page
from tests.soak.run import Bench, soak
from tests.tiny_flagship import tiny_flagship

_LOGS = Path(__file__).parents[2] / ".run" / "soak"
_KEPT_LOGS = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(1.0))
@click.option("--seed", default=1, show_default=True, help="Of what is done when.")
@click.option("--rate", default=100.0, show_default=True, help="Events a second.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--page/--no-page", default=False, help="Write docs/results/soak.md.")
def main(minutes: float, seed: int, rate: float, json_path: Path | None, page: bool) -> None:
    """Soak two workers."""
    narrator = Narrator(3)
    logs = _log_directory()
    faults = plan(seed, 60 * minutes)
    try:
        with Stops(), tempfile.TemporaryDirectory(prefix="sortiment-soak-") as scratch:
            narrator.step("Catalog and releases")
            catalog = write_catalog(Path(scratch, "catalog"))
            taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
            release = tiny_flagship(Path(scratch, "made"), taxonomy).directory
            num_versions = 1 + sum(fault.kind == "swap" for fault in faults)
            versions = [
                as_version(release, Path(scratch, str(number)), str(number))
                for number in range(1, num_versions + 1)
            ]
            narrator.step(f"{minutes:g} minutes, {len(faults)} faults, seed {seed}; logs: {logs}")
            result = soak(
                Bench(
                    versions=versions,
                    products=load_products(catalog),
                    faults=faults,
                    seconds=60 * minutes,
                    rate=rate,
                    logs=logs,
                    say=narrator.say,
                )
            )
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    narrator.step("What came of it")
    text = table(result)
    narrator.console.print(f"\n{text}\n", markup=False, soft_wrap=True)
    for line in result.details:
        narrator.say(line)
    if page:
        extra = f' ARGS="--rate {rate:g}"' if rate != 100 else ""
        command = f"make soak MINUTES={minutes:g} SEED={seed}{extra}"
        written = write_page(
            text, command=command, brokers=result.brokers, seed=seed, minutes=minutes, rate=rate
        )
        narrator.say(f"written: {written}")
    if json_path is not None:
        document = as_json(result, minutes, seed)
        json_path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    if not result.is_kept:
        narrator.say(f"FAILED; what was done when, what the workers said, all samples: {logs}")
        sys.exit(1)


def _log_directory() -> Path:
    _LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(_LOGS.iterdir(), key=lambda path: path.stat().st_mtime)[: -_KEPT_LOGS + 1]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_LOGS, prefix="run-"))


if __name__ == "__main__":
    main()
