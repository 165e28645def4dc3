"""The table, for people and for machines."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe, versions
from tests.chaos.run import NUM_WORKERS, PARTITIONS, SESSION_MS, CellResult

__all__ = ["PAGE", "as_json", "table", "write_page"]

PAGE = Path(__file__).parents[2] / "docs" / "results" / "chaos.md"


def table(results: Sequence[CellResult]) -> str:
    """Markdown: a cell a line, a sum, and what else was noticed."""
    lines = [
        "| fault | target | order | products | faults | lost | twice | out of order |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        cell = result.cell
        order = "checked by key" if cell.ordered else "no key repeats"
        lines.append(f"| {cell.fault} | {cell.target} | {order} | {_figures(result)} |")
    sums = [sum(column) for column in zip(*map(_counts, results), strict=True)]
    lines.append(f"| all | | | {' | '.join(f'**{value:,}**' for value in sums)} |")
    odd = [f"- {result.cell.name}: {text}" for result in results for text in result.oddities]
    if odd:
        lines += ["", "Noticed besides:", "", *odd]
    return "\n".join(lines)


def as_json(results: Sequence[CellResult]) -> dict[str, Any]:
    """``{"rows": [{"fault", "target", "ordered", "products", "lost", ...}, ...]}``."""
    return {
        "rows": [
            {
                "fault": result.cell.fault,
                "target": result.cell.target,
                "ordered": result.cell.ordered,
                "products": result.products,
                "lost": len(result.verdict.lost),
                "twice": len(result.verdict.twice),
                "out_of_order": len(result.verdict.out_of_order),
                "faults": result.faults,
            }
            for result in results
        ]
    }


def write_page(
    text: str, *, command: str, brokers: str, seed: int, seconds: float, delivery: str
) -> Path:
    """``docs/results/chaos.md``, anew."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    PAGE.write_text(
        f"# Faults, {today}\n\n"
        f"- Hardware: {describe()}; brokers and workers share it\n"
        f"- Brokers: {brokers}; replication 3, min in-sync 2\n"
        f"- Workers: {NUM_WORKERS}, no-op model, delivery {delivery}, {PARTITIONS} partitions, "
        f"session of {SESSION_MS / 1000:g} s\n"
        f"- Versions: {versions('aiokafka', 'confluent-kafka', 'faust-streaming')}\n"
        f"- Seed: {seed}\n"
        f"- Command: `{command}`\n\n"
        f"{text}\n\n"
        f"In each cell products come in for {seconds:g} s, and every few seconds a member chosen "
        "by chance is hit and comes back: at most two workers, or one broker, are away at a time. "
        "A frozen member (`sigstop`) goes on after its session has ended, as a zombie. Two readers "
        "of committed events are asked, one from the beginning of the run and one after it. Lost: "
        "a product for which one of them did not find both results, or a dead letter. Twice: a "
        "product of which one of them found an output more than once. Out of order: a product with "
        "an output behind that of a later product with the same key. One event in fifty is no "
        "product and must be a dead letter.\n"
    )
    return PAGE


def _counts(result: CellResult) -> tuple[int, ...]:
    verdict = result.verdict
    wrong = (verdict.lost, verdict.twice, verdict.out_of_order)
    return (result.products, result.faults, *map(len, wrong))


def _figures(result: CellResult) -> str:
    return " | ".join(f"{value:,}" for value in _counts(result))
