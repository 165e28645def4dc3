"""What watch shows: counts, joined outputs, and hostile text made harmless."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from worker.output_reader import (
    AttributesOutput,
    CategoriesOutput,
    DeadLetterOutput,
    Origin,
    UnreadableOutput,
)
from worker.watch_board import Board, plain_line, printable, render, totals

HOSTILE = "[red]a[/red]\x1b]0;owned\x07\x1b[2J\n\u202egnp.exe"


def categories(offset: int, *, status: str = "assigned", **fields: object) -> CategoriesOutput:
    values: dict[str, object] = {
        "origin": Origin("products", 0, offset),
        "timestamp_ms": 0,
        "product_id": f"p{offset}",
        "locale": "en",
        "release": "r/1",
        "category_id": "shoes/boots",
        "score": 0.913,
        "path": ("Shoes", "Boots"),
        "status": status,
        "agrees": None,
    }
    return CategoriesOutput(**(values | fields))  # type: ignore[arg-type]


def attributes(offset: int, *pairs: tuple[str, str]) -> AttributesOutput:
    origin = Origin("products", 0, offset)
    return AttributesOutput(origin, 0, f"p{offset}", "en", "r/1", pairs, ())


def drawn(board: Board, **kwargs: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    console.print(render(board, 0.0, **kwargs))  # type: ignore[arg-type]
    return out.getvalue()


def test_both_outputs_of_a_product_become_one_row() -> None:
    board = Board()
    assert board.add([categories(1), categories(2)], 0.0) == []
    (row,) = board.add([attributes(2, ("Color", "red"))], 0.1)
    assert plain_line(row) == "p2 | Shoes › Boots | 0.91 assigned | Color: red"
    assert (board.products, board.completed) == (2, 1)


def test_an_output_whose_partner_never_comes_is_shown_after_a_second() -> None:
    board = Board()
    assert board.add([categories(1)], 0.0) == []
    assert board.add([], 0.9) == []
    (row,) = board.add([attributes(5)], 1.1)
    assert plain_line(row) == "p1 | Shoes › Boots | 0.91 assigned | -"


def test_counts() -> None:
    board = Board()
    letter = DeadLetterOutput(Origin("products", 0, 9), 0, "invalid_json", "")
    board.add(
        [
            categories(1, agrees=True),
            attributes(1, ("Color", "red"), ("Size", "M")),
            categories(2, status="review", agrees=False),
            attributes(2),
            letter,
            letter,
            UnreadableOutput("product-categories", 0, 3),
        ],
        0.0,
    )
    assert totals(board, 0.0) == (
        "2 products · 2/s · 1 for review · 2 attribute values · claims: 1 agree, 1 do not · "
        "2 dead letters (invalid_json 2) · 1 records of another kind"
    )


def test_rate_forgets() -> None:
    board = Board()
    board.add([categories(n) for n in range(10)], 0.0)
    board.add([categories(n) for n in range(10, 30)], 2.0)
    assert board.rate(2.0) == 15.0
    assert board.rate(6.0) == 5.0
    assert board.rate(60.0) == 0.0


def test_only_the_newest_are_kept() -> None:
    board = Board(max_rows=3)
    board.add([out for n in range(9) for out in (categories(n), attributes(n))], 0.0)
    assert [row.product_id for row in board.newest] == ["p6", "p7", "p8"]
    assert "p8" in drawn(board)
    assert "p5" not in drawn(board)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ｔｅｘｔ 靴", "plain ｔｅｘｔ 靴"),
        ("\x1b[31mred\x07", "·[31mred·"),
        ("a\nb\tc\r", "a·b·c·"),
        ("\u202eabc\u2066", "·abc·"),
        ("a\u0300\u0301\u0302\u0303", "a\u0300\u0301"),
        ("\ud800", "·"),
        ("x" * 61, "x" * 59 + "…"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_hostile_text_neither_steers_the_terminal_nor_is_markup() -> None:
    board = Board()
    hostile = categories(1, product_id=HOSTILE, path=(HOSTILE,), status=HOSTILE)
    (row,) = board.add([hostile, attributes(1, (HOSTILE, HOSTILE))], 0.0)
    board.add([DeadLetterOutput(Origin("products", 0, 2), 0, HOSTILE, HOSTILE)], 0.0)
    for shown in (plain_line(row), drawn(board), drawn(board, titles={HOSTILE: HOSTILE})):
        assert "[red]a[/red]·]0;owned··" in shown
        assert "\x1b]0" not in shown
        assert "\x1b[2J" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown


def test_titles_stand_in_for_ids() -> None:
    board = Board()
    (row,) = board.add([categories(1), attributes(1)], 0.0)
    assert plain_line(row, {"p1": "Rain boots"}).startswith("Rain boots | ")
    assert "Rain boots" in drawn(board, titles={"p1": "Rain boots"})
