"""The collector's view of a loaded release."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from worker import heap
from worker.heap import freeze_heap, trim_heap, trim_heap_after


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class _Node:
    def __init__(self) -> None:
        self.me: _Node | None = self


def test_what_lives_is_out_of_sight() -> None:
    kept = [_Node() for _ in range(100)]
    freeze_heap()
    assert gc.get_freeze_count() >= len(kept)
    assert not any(found is kept for found in gc.get_objects())


def test_what_is_garbage_already_is_not_kept() -> None:
    node = _Node()
    seen = weakref.ref(node)
    del node
    freeze_heap()
    assert seen() is None


def test_memory_can_be_given_back_at_any_time() -> None:
    trim_heap()


def test_memory_is_given_back_once_the_last_reference_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(heap, "trim_heap", trimmed.set)
    monkeypatch.setattr(heap, "_TRIM_DELAY_S", 0.0)
    node = _Node()
    node.me = None
    trim_heap_after(node)
    assert not trimmed.is_set()
    del node
    assert trimmed.wait(10)
