"""The table, for people and for machines."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.hardware import describe, short_name, versions
from benchmarks.stream.rows import ROWS, Row, Sample

__all__ = ["as_json", "table", "write_page"]

Samples: TypeAlias = Mapping[str, Sequence[Sample]]

# A quiet machine shows some hundredths; a tenth of a core begins to move the figures.
MAX_OTHER_CORES = 0.1
_COMPARED = (
    ("worker_noop", "faust_take"),
    ("worker_noop", "worker_noop_at_least_once"),
    ("worker_model", "offline_model"),
)
_RESULTS = Path(__file__).parents[1] / "results"


def table(samples: Samples, counts: Mapping[str, int]) -> str:
    """Markdown: a row a line; the median of its runs, and all of them."""
    lines = ["| row | what | products | products/s | runs |", "|---|---|---:|---:|---|"]
    for row in _measured(samples):
        runs = ", ".join(f"{sample.products_per_s:,.0f}" for sample in samples[row.name])
        middle = _median(samples, row.name)
        lines.append(
            f"| `{row.name}` | {row.description} | {counts[row.name]:,} | {middle:,.0f} | {runs} |"
        )
    return "\n".join([*lines, "", *_ratios(samples), *_disturbances(samples)])


def as_json(samples: Samples, counts: Mapping[str, int]) -> dict[str, Any]:
    """``{"rows": [{"name", "products_per_s", "runs", "products"}, ...]}`` with medians."""
    return {
        "rows": [
            {
                "name": row.name,
                "products_per_s": _median(samples, row.name),
                "runs": [sample.products_per_s for sample in samples[row.name]],
                "other_cores": [sample.other_cores for sample in samples[row.name]],
                "products": counts[row.name],
            }
            for row in _measured(samples)
        ]
    }


def write_page(text: str, *, command: str, broker: str, data: str) -> Path:
    """``results/stream_<hardware>_<date>.md``; the same day's is replaced."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    path = _RESULTS / f"stream_{short_name()}_{today}.md"
    path.parent.mkdir(exist_ok=True)
    packages = versions("aiokafka", "faust-streaming", "torch", "orjson", "confluent-kafka")
    path.write_text(
        f"# Stream, {today}\n\n"
        f"- Hardware: {describe()}; the broker runs on the same cores\n"
        f"- Broker: {broker}; 12 partitions, replication 1\n"
        f"- Versions: {packages}\n"
        f"- Data: {data}; input preloaded\n"
        f"- Command: `{command}`\n\n"
        f"{text}\n\n"
        "Each process is warmed up until it has nothing in hand, frozen while the input is loaded "
        "and measured from its thaw to the last commit. Every product must have come out on both "
        "topics, once.\n"
    )
    return path


def _measured(samples: Samples) -> list[Row]:
    return [row for row in ROWS if row.name in samples]


def _ratios(samples: Samples) -> list[str]:
    lines = []
    for above, below in _COMPARED:
        if above in samples and below in samples:
            ratio = _median(samples, above) / _median(samples, below)
            lines.append(f"`{above}` / `{below}`: {ratio:.2f}")
    return lines


def _median(samples: Samples, name: str) -> float:
    return statistics.median(sample.products_per_s for sample in samples[name])


def _disturbances(samples: Samples) -> list[str]:
    disturbed = [
        f"{row.name} run {run} ({sample.other_cores:.1f} cores)"
        for row in _measured(samples)
        for run, sample in enumerate(samples[row.name], start=1)
        if sample.other_cores is not None and sample.other_cores > MAX_OTHER_CORES
    ]
    if not disturbed:
        return []
    return [
        "",
        "**Not a fair comparison**: other processes kept the machine busy during "
        f"{', '.join(disturbed)}.",
    ]
