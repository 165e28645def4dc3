"""The table, for people and for machines."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe, short_name, versions
from benchmarks.stream.rows import ROWS, Row

__all__ = ["as_json", "table", "write_page"]

_RESULTS = Path(__file__).parents[1] / "results"


def table(rates: Mapping[str, Sequence[float]], counts: Mapping[str, int]) -> str:
    """Markdown: a row a line; the median of its runs, and all of them."""
    lines = ["| row | what | products | products/s | runs |", "|---|---|---:|---:|---|"]
    for row in _measured(rates):
        runs = ", ".join(f"{rate:,.0f}" for rate in rates[row.name])
        median = statistics.median(rates[row.name])
        lines.append(
            f"| `{row.name}` | {row.description} | {counts[row.name]:,} | {median:,.0f} | {runs} |"
        )
    return "\n".join([*lines, "", *_ratios(rates)])


def as_json(rates: Mapping[str, Sequence[float]], counts: Mapping[str, int]) -> dict[str, Any]:
    """``{"rows": [{"name", "products_per_s", "runs", "products"}, ...]}`` with medians."""
    return {
        "rows": [
            {
                "name": row.name,
                "products_per_s": statistics.median(rates[row.name]),
                "runs": list(rates[row.name]),
                "products": counts[row.name],
            }
            for row in _measured(rates)
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
        "A run counts from the commit after which a tenth of the input is done (start-up is over) "
        "to the last commit. Every product must have come out on both topics, once.\n"
    )
    return path


def _measured(rates: Mapping[str, Sequence[float]]) -> list[Row]:
    return [row for row in ROWS if row.name in rates]


def _ratios(rates: Mapping[str, Sequence[float]]) -> list[str]:
    lines = []
    for above, below in (("worker_noop", "faust_take"), ("worker_model", "offline_model")):
        if above in rates and below in rates:
            ratio = statistics.median(rates[above]) / statistics.median(rates[below])
            lines.append(f"`{above}` / `{below}`: {ratio:.2f}")
    return lines
