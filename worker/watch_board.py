"""What `watch` and the demo show: the newest products, totals, rates, dead letters by reason.

Ids and details are sellers' text: control characters could steer the terminal, and square brackets
would be rich's mark-up. All text passes ``printable``, and cells are ``Text``, never mark-up.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.output_reader import (
    AttributesOutput,
    CategoriesOutput,
    DeadLetterOutput,
    Origin,
    Output,
)

__all__ = ["Board", "Row", "plain_line", "printable", "render"]

_RATE_WINDOW_S = 5.0
# A release may name only one of the two models: then a product's other event never comes.
_PARTNER_WAIT_S = 1.0
# What else is invisible or reorders text: separators, formats (bidi), surrogates, private use.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, max_chars: int = 60) -> str:
    """The text in one line of visible characters, cut to ``max_chars``; hidden ones become ``·``.

    Combining marks beyond two in a row are left out: stacked, they cover other lines.
    """
    shown: list[str] = []
    marks = 0
    for character in text[: max_chars + 1]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= 2:
            shown.append("·" if unicodedata.category(character) in _HIDDEN else character)
    if len(text) > max_chars:
        return "".join(shown[: max_chars - 1]) + "…"
    return "".join(shown)


@dataclass(slots=True)
class Row:
    """A product as it is shown; its two output events, joined by their input event."""

    origin: Origin
    seen_s: float
    categories: CategoriesOutput | None = None
    attributes: AttributesOutput | None = None

    @property
    def product_id(self) -> str:
        output = self.categories or self.attributes
        return output.product_id if output else ""


@dataclass(slots=True)
class Board:
    """Counts and newest products.

    Args:
        max_rows: how many of the newest are kept.
    """

    max_rows: int = 12
    products: int = 0
    completed: int = 0
    review: int = 0
    attribute_values: int = 0
    claims: Counter[bool] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    newest: deque[Row] = field(default_factory=deque)
    _waiting: OrderedDict[Origin, Row] = field(default_factory=OrderedDict)
    _times: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, outputs: Iterable[Output], now_s: float) -> list[Row]:
        """Take events; returns the products that are complete now, in their order of arrival."""
        done = []
        before = self.products
        for output in outputs:
            if isinstance(output, DeadLetterOutput):
                self.reasons[output.reason] += 1
            elif isinstance(output, CategoriesOutput | AttributesOutput):
                row = self._join(output, now_s)
                if row.categories is not None and row.attributes is not None:
                    done.append(self._waiting.pop(row.origin))
            else:
                self.unreadable += 1
        while self._waiting and now_s - next(iter(self._waiting.values())).seen_s > _PARTNER_WAIT_S:
            done.append(self._waiting.popitem(last=False)[1])
        self.completed += len(done)
        self.newest.extend(done)
        while len(self.newest) > self.max_rows:
            self.newest.popleft()
        if self.products > before:
            self._times.append((now_s, self.products - before))
        return done

    def rate(self, now_s: float) -> float:
        """Products a second over the last seconds."""
        while self._times and now_s - self._times[0][0] > _RATE_WINDOW_S:
            self._times.popleft()
        if not self._times:
            return 0.0
        span_s = max(now_s - self._times[0][0], 1.0)
        return sum(count for _, count in self._times) / span_s

    def _join(self, output: CategoriesOutput | AttributesOutput, now_s: float) -> Row:
        row = self._waiting.get(output.origin)
        if row is None:
            row = self._waiting[output.origin] = Row(output.origin, now_s)
            self.products += 1
        if isinstance(output, CategoriesOutput):
            row.categories = output
            self.review += output.status == "review"
            if output.agrees is not None:
                self.claims[output.agrees] += 1
        else:
            row.attributes = output
            self.attribute_values += len(output.pairs)
        return row


def render(
    board: Board, now_s: float, heading: str = "", titles: Mapping[str, str] | None = None
) -> RenderableType:
    """The board as a table with a line of totals under it.

    Args:
        titles: by product id, where they are known.
    """
    table = Table(expand=True, title=Text(heading) if heading else None, title_justify="left")
    table.add_column("product", ratio=4, no_wrap=True)
    table.add_column("category", ratio=4, no_wrap=True)
    table.add_column("score", justify="right", width=5)
    table.add_column("status", width=8)
    table.add_column("claim", width=6)
    table.add_column("attributes", ratio=5, no_wrap=True)
    for row in reversed(board.newest):
        categories = row.categories
        status = categories.status if categories else ""
        table.add_row(
            Text(_product(row, titles)),
            Text(_path(row)),
            Text(f"{categories.score:.2f}" if categories else ""),
            Text(printable(status, 8), style="green" if status == "assigned" else "yellow"),
            Text(_claim(row)),
            Text(_attributes(row)),
        )
    return Group(table, Text(totals(board, now_s)))


def totals(board: Board, now_s: float) -> str:
    """All counts in one line."""
    parts = [f"{board.products:,} products", f"{board.rate(now_s):,.0f}/s"]
    parts.append(f"{board.review:,} for review")
    parts.append(f"{board.attribute_values:,} attribute values")
    if board.claims:
        parts.append(f"claims: {board.claims[True]:,} agree, {board.claims[False]:,} do not")
    dead = sum(board.reasons.values())
    reasons = ", ".join(
        f"{printable(reason, 40)} {count:,}" for reason, count in board.reasons.most_common(5)
    )
    parts.append(f"{dead:,} dead letters" + (f" ({reasons})" if reasons else ""))
    if board.unreadable:
        parts.append(f"{board.unreadable:,} records of another kind")
    return " · ".join(parts)


def plain_line(row: Row, titles: Mapping[str, str] | None = None) -> str:
    """A product in one line, where there is no terminal to draw on."""
    categories = row.categories
    scored = f"{categories.score:.2f} {printable(categories.status, 8)}" if categories else "-"
    claim = f" | claim {_claim(row)}" if _claim(row) else ""
    return f"{_product(row, titles)} | {_path(row)} | {scored}{claim} | {_attributes(row)}"


def _product(row: Row, titles: Mapping[str, str] | None) -> str:
    title = (titles or {}).get(row.product_id)
    return printable(title if title else row.product_id)


def _path(row: Row) -> str:
    if row.categories is None:
        return "-"
    return printable(" › ".join(row.categories.path[-2:]))


def _claim(row: Row) -> str:
    agrees = row.categories.agrees if row.categories else None
    return "" if agrees is None else "agrees" if agrees else "other"


def _attributes(row: Row) -> str:
    if row.attributes is None:
        return "-"
    return printable(", ".join(f"{name}: {value}" for name, value in row.attributes.pairs), 120)
