"""The preparing stage: events to products to arrays to planned batches. Runs on its own thread."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from models.prepare import Prepared
from models.product import Product
from worker.batching import BatchingConfig, plan_batches
from worker.errors import EventError
from worker.events import MAX_KEY_BYTES, Window, dead_letter, parse_event
from worker.hostile_records import fault_of
from worker.inference import Batch
from worker.lanes import DeadLetter
from worker.serving import NO_CATEGORY, Serving

__all__ = ["UNPREPARABLE", "Preparation", "prepare_window"]

_log = logging.getLogger(__name__)

UNPREPARABLE = "unpreparable"  # reason of a product on which the preparer fails alone
# Reasons that are the release's, not the product's: another one may do better.
_OF_THE_RELEASE = frozenset({UNPREPARABLE, NO_CATEGORY})


@dataclass(slots=True)
class Preparation:
    """A window after this stage: every event is in one of the two.

    Attributes:
        batches: planned, ready for the model.
        dead: rows of the window with their dead letters.
    """

    batches: list[Batch] = field(default_factory=list)
    dead: list[tuple[int, DeadLetter]] = field(default_factory=list)

    def take_back(self) -> list[int]:
        """Rows whose death is the release's doing; they are no longer among the dead."""
        rows = [row for row, letter in self.dead if letter.reason in _OF_THE_RELEASE]
        self.dead = [each for each in self.dead if each[1].reason not in _OF_THE_RELEASE]
        return rows


def prepare_window(serving: Serving, window: Window, config: BatchingConfig) -> Preparation:
    """Decode, validate, prepare and plan one window."""
    preparation = Preparation()
    rows: list[int] = []
    products: list[Product] = []
    for row, record in enumerate(window.records):
        if (fault := fault_of(record)) is not None:
            _bury(preparation, serving, window, row, fault.reason, fault.detail)
            continue
        if record.key is not None and len(record.key) > MAX_KEY_BYTES:
            detail = f"the key has {len(record.key)} bytes, allowed are {MAX_KEY_BYTES}"
            _bury(preparation, serving, window, row, "key_too_long", detail)
            continue
        try:
            product = parse_event(record.value)
        except EventError as error:
            _bury(preparation, serving, window, row, error.reason, error.detail)
        else:
            if serving.needs_claim and not serving.has_known_claim(product):
                _bury(preparation, serving, window, row, *serving.no_claim(product))
                continue
            rows.append(row)
            products.append(product)
    _prepare(preparation, serving, window, rows, products, config)
    return preparation


def _prepare(
    preparation: Preparation,
    serving: Serving,
    window: Window,
    rows: list[int],
    products: list[Product],
    config: BatchingConfig,
) -> None:
    if not rows:
        return
    try:
        prepared = serving.prepare(products)
    except Exception as error:  # noqa: BLE001  whatever a tokenizer raises is narrowed down
        if len(rows) == 1:
            detail = f"{type(error).__name__}: {error}"
            _bury(preparation, serving, window, rows[0], UNPREPARABLE, detail)
            return
        _log.warning("preparing %d products failed (%s): trying halves", len(rows), error)
        middle = len(rows) // 2
        _prepare(preparation, serving, window, rows[:middle], products[:middle], config)
        _prepare(preparation, serving, window, rows[middle:], products[middle:], config)
        return
    _plan(preparation, serving, window, rows, products, prepared, config)


def _plan(
    preparation: Preparation,
    serving: Serving,
    window: Window,
    rows: list[int],
    products: list[Product],
    prepared: Prepared,
    config: BatchingConfig,
) -> None:
    planned = plan_batches(prepared.costs, config)
    for chosen in planned:
        is_all_in_order = len(planned) == 1 and bool((np.diff(chosen) == 1).all())
        positions = chosen.tolist()
        window_rows = [rows[position] for position in positions]
        preparation.batches.append(
            Batch(
                serving,
                [window.records[row] for row in window_rows],
                [products[position] for position in positions],
                [window.lanes[row] for row in window_rows],
                [window.slots[row] for row in window_rows],
                prepared if is_all_in_order else prepared.take(chosen),
            )
        )


def _bury(
    preparation: Preparation,
    serving: Serving,
    window: Window,
    row: int,
    reason: str,
    detail: str,
) -> None:
    letter = dead_letter(window.records[row], reason, detail, serving.release.id)
    preparation.dead.append((row, letter))
