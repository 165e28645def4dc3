"""The tables, for people and for machines."""

from __future__ import annotations

import datetime
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe, versions
from tests.soak.plan import KINDS, Kind
from tests.soak.run import NUM_WORKERS, PARTITIONS, Result
from tests.soak.verdict import MAX_GROWTH

__all__ = ["PAGE", "as_json", "table", "write_page"]

PAGE = Path(__file__).parents[2] / "docs" / "results" / "soak.md"

_TOLD: dict[Kind, str] = {
    "sigterm": "worker 2 stopped (SIGTERM) and started again",
    "kill9": "worker 2 killed (SIGKILL) and started again",
    "redis": "Redis restarted, empty",
    "broker": "one of the brokers stopped or killed, in turn, and started again",
    "swap": "another release announced",
    "dead_letters": "200 events that are no products, at once",
}


def table(result: Result) -> str:
    """Markdown: what came out, what was done, what the lasting worker takes."""
    verdict = result.verdict
    lines = [
        "| events | lost | twice | out of order |",
        "|---:|---:|---:|---:|",
        f"| {result.events:,} | {len(verdict.lost)} | {len(verdict.twice)} "
        f"| {len(verdict.out_of_order)} |",
        "",
        "| fault | times |",
        "|---|---:|",
    ]
    lines += [f"| {_TOLD[kind]} | {result.faults[kind]} |" for kind in KINDS]
    lines += [
        "",
        "| worker 1 | after the warm-up | at the end | at most | |",
        "|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {each.what} | {each.before:,.0f} | {each.after:,.0f} | {each.allowed:,.0f} "
        f"| {'kept' if each.is_kept else '**not kept**'} |"
        for each in result.findings
    ]
    tenths = ", ".join("-" if math.isnan(value) else f"{value:,.0f}" for value in result.memory)
    lines += ["", f"Its memory in each tenth of the run, MiB: {tenths}"]
    if result.oddities:
        lines += ["", "Noticed besides:", "", *(f"- {text}" for text in result.oddities)]
    return "\n".join(lines)


def as_json(result: Result, minutes: float, seed: int) -> dict[str, Any]:
    """``{"minutes", "seed", "events", "lost", "twice", "out_of_order", "faults", ...}``."""
    verdict = result.verdict
    return {
        "minutes": minutes,
        "seed": seed,
        "events": result.events,
        "lost": len(verdict.lost),
        "twice": len(verdict.twice),
        "out_of_order": len(verdict.out_of_order),
        "faults": dict(result.faults),
        "findings": [asdict(each) | {"kept": each.is_kept} for each in result.findings],
        "memory_mib_by_tenth": result.memory,
        "oddities": result.oddities,
        "kept": result.is_kept,
    }


def write_page(
    text: str, *, command: str, brokers: str, seed: int, minutes: float, rate: float
) -> Path:
    """``docs/results/soak.md``, anew."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    PAGE.write_text(
        f"# Soak, {today}\n\n"
        f"- Hardware: {describe()}; brokers, Redis and workers share it\n"
        f"- Brokers: {brokers}; {PARTITIONS} partitions, replication 3, min in-sync 2\n"
        f"- Workers: {NUM_WORKERS}, a flagship of a few thousand random weights on the sample "
        "catalog's taxonomy, exactly once\n"
        f"- Versions: {versions('aiokafka', 'faust-streaming', 'torch', 'confluent-kafka')}\n"
        f"- Seed: {seed}\n"
        f"- Command: `{command}`\n\n"
        f"{text}\n\n"
        f"For {minutes:g} minutes {rate:g} events come in each second, one in fifty of them no "
        "product, and every half minute or so something is done to the system, all kinds in turn "
        "in an order drawn by the seed. Worker 1 is never hit, and lives throughout. Its figures "
        "are medians over samples taken every five seconds at times when it was ready and had half "
        "of the partitions: after the warm-up, a quarter of the run, and in its last fifth. Memory "
        f"(resident) may grow by {MAX_GROWTH:.0%}, threads, descriptors, connections and tasks not "
        "beyond the jitter of a median. Lost, twice and out of order are as on [the page of the "
        "faults](chaos.md), for two readers of committed events.\n"
    )
    return PAGE
