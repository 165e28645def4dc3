"""What the demo says: numbered steps, and lines of children as they come."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

__all__ = ["Narrator", "Relay"]

# Of tables in a log or a pipe, where nothing says how wide it is.
_PLAIN_WIDTH = 110


class Narrator:
    """Tells a person what happens.

    Args:
        num_steps: how many ``step`` will come.
    """

    def __init__(self, num_steps: int) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        self._num_steps = num_steps
        self._step = 0
        self._started_s = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether there is a terminal to redraw on."""
        return self.console.is_terminal

    def step(self, text: str) -> None:
        """Begin the next step."""
        self._step += 1
        heading = Text(f"[{self._step}/{self._num_steps}] {text}", style="bold")
        self.console.print(heading, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line within a step; the text is shown as it is."""
        self.console.print(Text(f"      {text}"), soft_wrap=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started_s


class Relay:
    """Passes on what a child appends to its log, carriage returns of progress bars included."""

    def __init__(self, path: Path, narrator: Narrator) -> None:
        self._path = path
        self._console = narrator.console
        self._position = 0

    def pump(self) -> None:
        """Show what is new."""
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._position)
            new = log.read()
        self._position += len(new)
        self._console.file.write(new.decode(errors="replace"))
        self._console.file.flush()
