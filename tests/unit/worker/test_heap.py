"""The collector's view of a loaded release."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from worker.heap import freeze_heap


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class _Node:
    def __init__(self) -> None:
        self.me = self


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
