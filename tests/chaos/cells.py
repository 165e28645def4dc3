"""The matrix: what happens, to whom, and whether order is to be kept; after Kafka's own test.

Apache Kafka, ``tests/kafkatest/tests/core/transactions_test.py``: hard and clean bounces of brokers
and clients, with and without order. A freeze beyond the session is added: it makes zombies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

__all__ = ["CELLS", "Cell", "Fault", "Target", "choose", "split"]

Fault: TypeAlias = Literal["kill9", "sigterm", "sigstop"]
Target: TypeAlias = Literal["worker", "broker"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of run.

    Attributes:
        fault: ``sigstop`` lasts beyond the session and ends with SIGCONT.
        target: who is hit; each time another of its kind, by chance.
        ordered: keys come again and again, and each one's order is checked; else none comes twice.
    """

    fault: Fault
    target: Target
    ordered: bool

    @property
    def name(self) -> str:
        """``kill9-worker-ordered``."""
        return f"{self.fault}-{self.target}-{'ordered' if self.ordered else 'unordered'}"


_FAULTS: tuple[Fault, ...] = ("kill9", "sigterm", "sigstop")
_TARGETS: tuple[Target, ...] = ("worker", "broker")
CELLS = tuple(Cell(*parts) for parts in product(_FAULTS, _TARGETS, (True, False)))


def choose(wanted: str) -> list[Cell]:
    """Cells in whose name one of the texts, separated by commas, occurs; empty: all.

    Raises:
        ValueError: there is none for one of them.
    """
    texts = [text.strip() for text in wanted.split(",") if text.strip()]
    for text in texts:
        if not any(text in f"-{cell.name}" for cell in CELLS):
            names = ", ".join(cell.name for cell in CELLS)
            raise ValueError(f"no cell has {text!r} in its name; there are {names}")
    return [cell for cell in CELLS if not texts or any(text in f"-{cell.name}" for text in texts)]


def split(products: int, cells: Sequence[Cell]) -> list[int]:
    """How many of the products each cell gets: all of them, as evenly as can be."""
    share, rest = divmod(products, len(cells))
    return [share + (index < rest) for index in range(len(cells))]
