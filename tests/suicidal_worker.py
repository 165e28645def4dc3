"""A worker that a product can kill: ``sortiment-worker`` with a no-op model that dies of a title.

What a segmentation fault in a tokenizer or a driver would do, on purpose.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import models.noop
from models.prepare import Prepared
from models.product import Product
from worker.cli import main

DEADLY_TITLE = "This title kills"

_prepare = models.noop._NoopPreparer.prepare


def _die_or_prepare(self: models.noop._NoopPreparer, products: Sequence[Product]) -> Prepared:
    if any(product.title == DEADLY_TITLE for product in products):
        os.kill(os.getpid(), signal.SIGKILL)
    return _prepare(self, products)


if __name__ == "__main__":
    models.noop._NoopPreparer.prepare = _die_or_prepare  # type: ignore[method-assign]
    main()
