"""The figures of a run, from what came out of Kafka and the held-out labels alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.stream import Pass
from training.data import LabelledProduct
from training.metrics import accuracy, label_measures, share_by_group
from worker.watch_board import printable

__all__ = ["Summary", "latencies_ms", "percentile", "render_summary", "summarise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What is printed, and written as JSON. Rates per second, times in milliseconds.

    Attributes:
        products: sent in the first pass, as fast as Kafka takes them.
        results: those of them with a ``categories`` event.
        products_per_s: results over the time from the first send to the last output.
        latency_ms_p50, latency_ms_p99: from the send (CreateTime of the input record) to the append
            of the ``categories`` event, in a second pass of the same products at half the rate.
        category_accuracy: top 1 of the results, products for review included.
        attribute_micro_f1: of the results, with the labels as served.
        review: results below their threshold.
    """

    products: int
    results: int
    dead_letters: int
    products_per_s: float
    latency_ms_p50: float
    latency_ms_p99: float
    category_accuracy: float
    attribute_micro_f1: float
    category_accuracy_by_locale: dict[str, float]
    results_by_locale: dict[str, int]
    attribute_values: int
    review: int
    assigned_accuracy: float
    claims_agree: int
    claims_differ: int
    dead_letters_by_reason: dict[str, int] = field(default_factory=dict)
    latency_products: int
    latency_rate_per_s: float
    broker: str
    release: str

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return asdict(self)


def summarise(
    held_out: Sequence[LabelledProduct],
    full_speed: Pass,
    paced: Pass,
    *,
    rate_per_s: float,
    broker: str,
) -> Summary:
    """The figures of both passes.

    Args:
        held_out: the products that were sent, with their true labels.
        full_speed: measures throughput and quality. paced: measures latency.
        rate_per_s: of the paced pass.
    """
    truth = {item.product.product_id: item for item in held_out}
    outputs = list(full_speed.categories.values())
    labels = {output.product_id: output.label_ids for output in full_speed.attributes.values()}
    known = [truth[output.product_id] for output in outputs]
    correct = [
        output.category_id == item.category for output, item in zip(outputs, known, strict=True)
    ]
    by_locale = share_by_group([item.product.locale for item in known], correct)
    measures = label_measures(
        [item.label_ids for item in known],
        [labels.get(output.product_id, ()) for output in outputs],
    )
    assigned = [
        right for right, output in zip(correct, outputs, strict=True) if output.status == "assigned"
    ]
    claims = Counter(output.agrees for output in outputs)
    times_ms = latencies_ms(paced)
    return Summary(
        products=len(full_speed.sent_ms),
        results=len(outputs),
        dead_letters=len(full_speed.dead_letters) + len(paced.dead_letters),
        products_per_s=len(outputs) / full_speed.seconds if full_speed.seconds else 0.0,
        latency_ms_p50=percentile(times_ms, 0.50),
        latency_ms_p99=percentile(times_ms, 0.99),
        category_accuracy=accuracy([True] * len(correct), correct),
        attribute_micro_f1=measures.micro_f1,
        category_accuracy_by_locale={name: share for name, (_, share) in by_locale.items()},
        results_by_locale={name: count for name, (count, _) in by_locale.items()},
        attribute_values=sum(map(len, labels.values())),
        review=len(outputs) - len(assigned),
        assigned_accuracy=accuracy([True] * len(assigned), assigned),
        claims_agree=claims[True],
        claims_differ=claims[False],
        dead_letters_by_reason=_reasons(full_speed, paced),
        latency_products=len(times_ms),
        latency_rate_per_s=rate_per_s,
        broker=broker,
        release=next((output.release for output in outputs), ""),
    )


def latencies_ms(run: Pass) -> list[int]:
    """Milliseconds from the send to the append of the ``categories`` event, sorted."""
    return sorted(
        output.timestamp_ms - run.sent_ms[origin]
        for origin, output in run.categories.items()
        if origin in run.sent_ms
    )


def percentile(ordered: Sequence[int], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed; NaN of none."""
    if not ordered:
        return math.nan
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def render_summary(summary: Summary, *, is_embedded: bool) -> RenderableType:
    """The figures as a table, with what they mean."""
    table = Table(show_header=False, title="Summary", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    by_locale = ", ".join(
        f"{printable(name, 12) or 'none'} {share:.3f} of {summary.results_by_locale[name]:,}"
        for name, share in summary.category_accuracy_by_locale.items()
    )
    clock = "the worker's own clock (embedded broker)" if is_embedded else "appended by Kafka"
    paced = f"{summary.latency_products:,} products at {summary.latency_rate_per_s:,.0f}/s"
    reasons = ", ".join(
        f"{printable(name, 40)} {count:,}" for name, count in summary.dead_letters_by_reason.items()
    )
    rows = [
        ("results", f"{summary.results:,}", f"of {summary.products:,} products"),
        ("products/s", f"{summary.products_per_s:,.0f}", "first send to last output, full speed"),
        ("latency p50", _ms(summary.latency_ms_p50), f"sent to output; {clock}"),
        ("latency p99", _ms(summary.latency_ms_p99), paced),
        ("category accuracy", f"{summary.category_accuracy:.3f}", by_locale),
        (
            "  of assigned",
            f"{summary.assigned_accuracy:.3f}",
            f"{summary.review:,} of {summary.results:,} go to review",
        ),
        (
            "attribute micro F1",
            f"{summary.attribute_micro_f1:.3f}",
            f"{summary.attribute_values:,} values, for the predicted category",
        ),
        (
            "claimed categories",
            f"{summary.claims_agree + summary.claims_differ:,}",
            f"{summary.claims_agree:,} agree, {summary.claims_differ:,} do not",
        ),
        ("dead letters", f"{summary.dead_letters:,}", reasons),
    ]
    for name, figure, note in rows:
        table.add_row(Text(name), Text(figure, style="bold"), Text(note))
    return Group(table)


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f} ms"


def _reasons(*passes: Pass) -> dict[str, int]:
    counts = Counter(letter.reason for run in passes for letter in run.dead_letters.values())
    return dict(counts.most_common())
