"""What the garbage collector looks at, and how often."""

from __future__ import annotations

import gc

__all__ = ["freeze_heap"]

# Products in flight make and free objects by the hundred thousand, nearly all of them without a
# cycle: at Python's 700 the collector came for each seventy products.
_YOUNG_OBJECTS = 50_000


def freeze_heap() -> None:
    """Take all that lives now out of the collector's sight, but for what is garbage already.

    A loaded release is about a million objects that stay, and every full collection looked at all
    of them: collecting took 18 % of the no-op worker's time, 7 % without them, and next to
    nothing with larger young generations. What was frozen before stays so, and is freed when its
    last reference goes: a release that is swapped out holds no cycles.
    """
    gc.set_threshold(_YOUNG_OBJECTS)
    gc.collect()
    gc.freeze()
