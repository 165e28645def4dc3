"""What a person sees while products stream: a live table on a terminal, some lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.live import Live

from demo.narration import Narrator
from worker.output_reader import Output
from worker.watch_board import Board, plain_line, render, totals

__all__ = ["StreamView"]

_ROWS = 12
_REFRESH_PER_S = 8
# Without a terminal: soon a first sign of life, then no flood in a log.
_FIRST_LINES_S = 1.0
_LINES_EVERY_S = 5.0
_SAMPLES = 2


class StreamView:
    """The newest products and the counts of one pass.

    Args:
        heading: above the table.
        titles: by product id.
    """

    def __init__(self, narrator: Narrator, heading: str, titles: Mapping[str, str]) -> None:
        self._narrator = narrator
        self._heading = heading
        self._titles = titles
        self._board = Board(max_rows=_ROWS)
        self._say_at_s = time.monotonic() + _FIRST_LINES_S
        self._live: Live | None = None

    def update(self, outputs: list[Output]) -> None:
        """Take what has come."""
        now_s = time.monotonic()
        self._board.add(outputs, now_s)
        if self._live is not None:
            self._live.update(render(self._board, now_s, titles=self._titles))
        elif outputs and now_s >= self._say_at_s:
            self._say_at_s = now_s + _LINES_EVERY_S
            self._say_lines(now_s)

    def _say_lines(self, now_s: float) -> None:
        for row in list(self._board.newest)[-_SAMPLES:]:
            self._narrator.say(plain_line(row, self._titles))
        self._narrator.say(totals(self._board, now_s))

    def __enter__(self) -> StreamView:
        self._narrator.say(self._heading)
        if self._narrator.live:
            self._live = Live(
                console=self._narrator.console,
                refresh_per_second=_REFRESH_PER_S,
                vertical_overflow="crop",
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
        elif kind is None:
            self._say_lines(time.monotonic())
