"""The demo's course, on one screen."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from demo.narration import Narrator
from demo.services import BrokerChoice, Running, run_services
from demo.stops import Stops
from demo.stream import Pass, stream
from demo.summary import Summary, render_summary, summarise
from demo.trained import ROOT, Training, prepare_data, train
from demo.view import StreamView
from models.errors import SortimentError
from training.data import DataSet, LabelledProduct, read_products
from worker.output_reader import OutputReader
from worker.product_lines import ProductEvent, read_events

__all__ = ["DemoConfig", "run_demo"]

# The catalog is easy: more is asked of what is assigned, so that some products go to review.
_CATALOG_TARGET_ACCURACY = 0.97
_LOGS = ROOT / ".run" / "demo"
_KEPT_LOGS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """What the person asked for.

    Attributes:
        data: folder of a data set; None: the sample catalog.
        limit: training products at most; None: the recipe's, 20,000.
        products: held-out products to send.
        json_path: also write the summary there.
    """

    broker: BrokerChoice
    data: Path | None
    limit: int | None
    products: int
    json_path: Path | None


def run_demo(config: DemoConfig, stops: Stops) -> Summary:
    """Catalog, release, services, two passes of products, summary.

    Raises:
        SortimentError: a step failed; says which and shows the log.
        Stopped: a signal came; everything has ended.
    """
    narrator = Narrator(num_steps=6)
    logs = _log_directory()
    narrator.step("Catalog")
    data = config.data.resolve() if config.data else prepare_data(narrator)
    held_out, events = _held_out(data, config.products)
    narrator.say(f"{len(held_out):,} held-out products to send, their labels kept back: {data}")
    narrator.step("Release: a frozen encoder and a bag of n-grams, heads trained on the catalog")
    target = None if config.data else _CATALOG_TARGET_ACCURACY
    release = train(Training(data, config.limit, target), logs / "training.log", narrator)
    with run_services(config.broker, release, logs, narrator) as running:
        summary = stops.run(_stream(running, held_out, events, narrator))
        narrator.step("Summary: from what came out of Kafka and the labels kept back")
        narrator.console.print(render_summary(summary, is_embedded=running.is_embedded))
    if config.json_path:
        config.json_path.write_bytes(orjson.dumps(summary.to_json(), option=orjson.OPT_INDENT_2))
        narrator.say(f"written: {config.json_path}")
    _say_more(narrator, release, data, len(held_out))
    return summary


def _held_out(data: Path, count: int) -> tuple[list[LabelledProduct], list[ProductEvent]]:
    """The first products of the test split: with labels for us, without them for the worker.

    Raises:
        SortimentError: it is a table, whose rows are no events as sellers send them.
    """
    path = DataSet(data).file("test")
    if path.suffix == ".parquet":
        raise SortimentError(
            f"{path}: products are sent from JSON lines, give them as test.jsonl or "
            "test.jsonl.gz (train and valid may be .parquet)"
        )
    held_out = list(islice(read_products(path), count))
    return held_out, list(islice(read_events([path], "noisy"), count))


async def _stream(
    running: Running,
    held_out: Sequence[LabelledProduct],
    events: Sequence[ProductEvent],
    narrator: Narrator,
) -> Summary:
    titles = {item.product.product_id: item.product.title for item in held_out}
    narrator.step(f"{len(events):,} products through Kafka, twice")
    async with OutputReader(running.kafka, running.topics) as reader:

        async def run_pass(rate_per_s: float | None, heading: str) -> Pass:
            with StreamView(narrator, heading, titles) as view:
                return await stream(running, reader, events, rate_per_s, view)

        full_speed = await run_pass(None, "first at full speed, for throughput and quality")
        rate_per_s = max(1.0, len(events) / full_speed.seconds / 2)
        heading = f"then at half of it, {rate_per_s:,.0f}/s, for latency"
        paced = await run_pass(rate_per_s, heading)
    return summarise(held_out, full_speed, paced, rate_per_s=rate_per_s, broker=running.broker)


def _log_directory() -> Path:
    _LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(_LOGS.iterdir(), key=lambda path: path.stat().st_mtime)[: -_KEPT_LOGS + 1]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_LOGS, prefix="run-"))


def _say_more(narrator: Narrator, release: Path, data: Path, count: int) -> None:
    narrator.say(f"done in {narrator.elapsed_s:.0f} s; everything that was started has ended")
    narrator.console.print()
    narrator.say("On a broker of your own, in three terminals; in each of them first:")
    narrator.say("  . .venv/bin/activate; export KAFKA_BOOTSTRAP_SERVERS=... REDIS_URL=...")
    narrator.say(f"  sortiment-worker announce {release} && sortiment-worker run")
    narrator.say("  sortiment-worker watch")
    narrator.say(f"  sortiment-worker produce --rate 100 {DataSet(data).file('test')}")
    narrator.say("A dead letter to see in `watch`: a product without any text")
    narrator.say("""  echo '{"product_id": 1, "title": ""}' > bad.jsonl""")
    narrator.say("  sortiment-worker produce bad.jsonl")
    narrator.say("The same figures without Kafka:")
    narrator.say(f"  sortiment-train evaluate --release {release} --data {data} --limit {count}")
