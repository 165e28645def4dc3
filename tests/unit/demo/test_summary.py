"""The demo's figures, on cases small enough to count by hand."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from demo.stream import Pass
from demo.summary import Summary, latencies_ms, percentile, render_summary, summarise
from models.product import parse_product
from training.data import LabelledProduct
from worker.output_reader import AttributesOutput, CategoriesOutput, DeadLetterOutput, Origin


def held_out(number: int, locale: str, category: str, *labels: tuple[str, str]) -> LabelledProduct:
    raw = {"product_id": f"p{number}", "title": "t", "locale": locale}
    return LabelledProduct(parse_product(raw), category, labels)


def origin(number: int) -> Origin:
    return Origin("products", 0, number)


def categories(
    number: int, category: str, *, at_ms: int = 0, status: str = "assigned", agrees: object = None
) -> CategoriesOutput:
    assert agrees is None or isinstance(agrees, bool)
    return CategoriesOutput(
        origin(number), at_ms, f"p{number}", "en", "demo/1", category, 0.5, (), status, agrees
    )


def attributes(number: int, *label_ids: str) -> AttributesOutput:
    return AttributesOutput(origin(number), 0, f"p{number}", "en", "demo/1", (), label_ids)


HELD_OUT = [
    held_out(0, "en", "a", ("Color", "red"), ("Size", "M")),
    held_out(1, "en", "b", ("Color", "blue")),
    held_out(2, "ja", "c", ("Color", "red")),
    held_out(3, "ja", "d", ("Color", "red")),
]


def full_speed() -> Pass:
    outputs = [
        categories(0, "a", agrees=True),
        categories(1, "x", status="review", agrees=False),
        categories(2, "c", status="review"),
    ]
    labels = [
        attributes(0, "Color=red", "Color=blue"),
        attributes(1, "Color=blue"),
        attributes(2),
    ]
    letter = DeadLetterOutput(origin(3), 0, "no_text", "")
    return Pass(
        sent_ms={origin(n): 1_000 for n in range(4)},
        categories={output.origin: output for output in outputs},
        attributes={output.origin: output for output in labels},
        dead_letters={letter.origin: letter},
        seconds=1.5,
    )


def paced() -> Pass:
    outputs = [categories(n, "a", at_ms=2_000 + delay) for n, delay in enumerate((30, 10, 20))]
    return Pass(
        sent_ms={origin(n): 2_000 for n in range(3)},
        categories={output.origin: output for output in outputs},
    )


@pytest.fixture
def summary() -> Summary:
    return summarise(HELD_OUT, full_speed(), paced(), rate_per_s=1.0, broker="a broker")


def test_counts(summary: Summary) -> None:
    assert (summary.products, summary.results, summary.dead_letters) == (4, 3, 1)
    assert summary.dead_letters_by_reason == {"no_text": 1}
    assert summary.products_per_s == 2.0
    assert (summary.review, summary.claims_agree, summary.claims_differ) == (2, 1, 1)
    assert summary.attribute_values == 3


def test_quality_is_of_the_results_joined_with_the_labels(summary: Summary) -> None:
    assert summary.category_accuracy == pytest.approx(2 / 3)
    assert summary.category_accuracy_by_locale == {"en": 0.5, "ja": 1.0}
    assert summary.results_by_locale == {"en": 2, "ja": 1}
    assert summary.assigned_accuracy == 1.0
    # Right: red of p0, blue of p1. Three given, four true: 2 * 2 / 7.
    assert summary.attribute_micro_f1 == pytest.approx(4 / 7)


def test_latency_is_of_the_second_pass(summary: Summary) -> None:
    assert latencies_ms(paced()) == [10, 20, 30]
    assert (summary.latency_ms_p50, summary.latency_ms_p99) == (20.0, 30.0)
    assert summary.latency_products == 3


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_percentile_is_the_nearest_rank(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_percentile_of_nothing() -> None:
    assert math.isnan(percentile([], 0.5))


def test_json_has_the_agreed_names(summary: Summary) -> None:
    assert set(summary.to_json()) >= {
        "products",
        "results",
        "dead_letters",
        "products_per_s",
        "latency_ms_p50",
        "latency_ms_p99",
        "category_accuracy",
        "attribute_micro_f1",
    }


def test_nothing_came() -> None:
    empty = summarise(HELD_OUT, Pass(), Pass(), rate_per_s=1.0, broker="")
    assert (empty.results, empty.products_per_s, empty.category_accuracy) == (0, 0.0, 0.0)
    drawn(empty)


def drawn(summary: Summary) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(render_summary(summary, is_embedded=True))
    return out.getvalue()


def test_table(summary: Summary) -> None:
    text = drawn(summary)
    assert "en 0.500 of 2, ja 1.000 of 1" in text
    assert "20 ms" in text
    assert "no_text 1" in text
    assert "worker's own clock" in text


def test_missing_needs_both_outputs_or_a_dead_letter() -> None:
    run = full_speed()
    assert run.missing() == 0
    del run.attributes[origin(0)]
    assert run.missing() == 1
    del run.dead_letters[origin(3)]
    assert run.missing() == 2
