"""The tables, for people and for machines."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hardware import describe, short_name, versions
from benchmarks.stream.inputs import PARTITIONS
from benchmarks.stream.report import MAX_OTHER_CORES
from benchmarks.swaps.run import MAX_BEYOND_MS, MAX_GROWTH, Result

__all__ = ["as_json", "table", "write_page"]

_RESULTS = Path(__file__).parents[1] / "results"
_MIB = 2**20


def table(results: Sequence[Result]) -> str:
    """Markdown: what came out, gaps, memory; a row a line. Then what was not kept."""
    lines = [
        "| row | what | swaps | products | products/s | no result | more than one "
        "| wrong release |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{result.row.name}` | {result.row.description} | {len(result.swap_s)} | "
        f"{result.products:,} | {result.products_per_s:,.0f} | {result.lost} | {result.twice} "
        f"| {result.wrong_release} |"
        for result in results
    ]
    lines += [
        "",
        "Gaps between successive outputs, in ms; memory, resident, in MiB:",
        "",
        "| row | announced to active, s: median, longest | ordinary gap: median, p99, longest "
        "| around a swap: median, longest | beyond the batch in hand: median, longest "
        "| memory before, after, growth, most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_gaps_and_memory(result) for result in results]
    failures = [
        f"- `{result.row.name}`: {text}" for result in results for text in result.failures()
    ]
    lines += ["", *(["Not kept:", "", *failures] if failures else ["All of it kept."])]
    disturbed = [
        f"`{result.row.name}` ({result.other_cores:.1f} cores)"
        for result in results
        if result.other_cores is not None and result.other_cores > MAX_OTHER_CORES
    ]
    if disturbed:
        lines += [
            "",
            "**Disturbed**: other processes kept the machine busy during "
            f"{', '.join(disturbed)}: gaps are longer than on a quiet one.",
        ]
    return "\n".join(lines)


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """``{"rows": [{"name", "swaps", "lost", "twice", "wrong_release", ...}, ...]}``."""
    return {
        "rows": [
            {
                "name": result.row.name,
                "swaps": len(result.swap_s),
                "products": result.products,
                "products_per_s": result.products_per_s,
                "lost": result.lost,
                "twice": result.twice,
                "wrong_release": result.wrong_release,
                "dead_letters": result.dead_letters,
                "swap_s": result.swap_s,
                "ordinary_gap_ms": _quantiles(result),
                "gap_ms": [gap.gap_ms for gap in result.gaps],
                "in_hand_ms": [gap.in_hand_ms for gap in result.gaps],
                "beyond_ms": result.beyond_ms,
                "rss_before": result.rss_before,
                "rss_after": result.rss_after,
                "rss_most": result.rss_most,
                "growth": result.growth,
                "memory": [[look.at_s, look.rss_bytes] for look in result.memory],
                "other_cores": result.other_cores,
                "failures": result.failures(),
            }
            for result in results
        ]
    }


def write_page(text: str, *, command: str, broker: str, data: str, load_s: float) -> Path:
    """``results/swaps_<hardware>_<date>.md``; the same day's is replaced."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    path = _RESULTS / f"swaps_{short_name()}_{today}.md"
    path.parent.mkdir(exist_ok=True)
    packages = versions("aiokafka", "faust-streaming", "torch", "orjson", "confluent-kafka")
    path.write_text(
        f"# Swaps, {today}\n\n"
        f"- Hardware: {describe()}; the broker runs on the same cores\n"
        f"- Broker: {broker}; {PARTITIONS} partitions, replication 1; one worker, exactly once\n"
        f"- Versions: {packages}\n"
        f"- Data: {data}; there is always a backlog\n"
        f"- Command: `{command}`\n\n"
        f"{text}\n\n"
        f"One worker is kept under full load, and after {load_s:g} s of it a release is announced, "
        "then the next as soon as `/status` names it as the active one, and so on: each time the "
        "same weights under another version, fetched, verified, loaded and self-checked like any "
        "other. Afterwards a reader of committed events compares outputs with inputs: each product "
        "must have one `categories` and one `attributes` event, of a release that was active at "
        "some time from the poll of its window to its emission.\n\n"
        "Gaps are between the broker's times of successive outputs (LogAppendTime, both topics "
        f"together). Ordinary ones: within the last {load_s / 2:g} s of load before the first swap "
        "and after the last. Around a swap: the longest between its announcement and the next "
        "one's. The batch in hand: the longest that the model ran meanwhile, by the worker's "
        f"metrics. Promised are at most {MAX_BEYOND_MS:g} ms beyond it. Memory: medians over the "
        f"same times as the ordinary gaps; promised is a growth of at most {MAX_GROWTH:.0%}. "
        "`most` counts two releases side by side.\n\n"
        "Gaps are of the worker's outputs as a whole: one product's result waits for those before "
        "it in its partition, up to a whole window, with swaps or without.\n"
    )
    return path


def _gaps_and_memory(result: Result) -> str:
    gaps = [gap.gap_ms for gap in result.gaps]
    beyond = [gap.beyond_ms for gap in result.gaps]
    median, p99, longest = _quantiles(result)
    return (
        f"| `{result.row.name}` "
        f"| {statistics.median(result.swap_s):.1f}, {max(result.swap_s):.1f} "
        f"| {median:,.0f}, {p99:,.0f}, {longest:,.0f} "
        f"| {statistics.median(gaps):,.0f}, {max(gaps):,.0f} "
        f"| {statistics.median(beyond):,.0f}, {max(beyond):,.0f} "
        f"| {result.rss_before / _MIB:,.0f}, {result.rss_after / _MIB:,.0f}, "
        f"{result.growth:+.1%}, {result.rss_most / _MIB:,.0f} |"
    )


def _quantiles(result: Result) -> list[float]:
    """Median, 99th percentile and longest of the ordinary gaps, ms."""
    found: list[float] = np.quantile(result.ordinary_ms, [0.5, 0.99, 1.0]).tolist()
    return found
