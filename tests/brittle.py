"""The no-op release behind a preparer and an encoder that may fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.predictor import Encoder
from models.prepare import Prepared, Preparer, Ragged
from models.product import Product
from tests.hot_path_runs import load_serving
from worker.serving import Serving

__all__ = ["POISON", "UNPREPARABLE", "BrittleEncoder", "BrittlePreparer", "brittle"]

POISON = "POISON"
UNPREPARABLE = "UNPREPARABLE"


@dataclass
class BrittlePreparer:
    """Marks poisonous titles for the encoder; fails on unpreparable ones."""

    def prepare(self, products: Sequence[Product]) -> Prepared:
        if any(UNPREPARABLE in each.title for each in products):
            raise ValueError("a title that no tokenizer likes")
        marks = np.array([POISON in each.title for each in products], dtype=np.int8)
        indptr = np.arange(len(products) + 1, dtype=np.int64)
        return Prepared({"marks": Ragged(marks, indptr)}, np.ones(len(products), dtype=np.int32))


@dataclass
class BrittleEncoder:
    """Fails on a batch with a marked product, and on one beyond ``room``."""

    room: int = 1_000_000
    fails_always: bool = False

    def encode(self, batch: Prepared) -> Tensor:
        if self.fails_always:
            raise RuntimeError("the device is gone")
        if len(batch) > self.room:
            raise torch.OutOfMemoryError(f"{len(batch)} products in room for {self.room}")
        if batch.arrays["marks"].values.any():
            raise RuntimeError("an input that the model cannot take")
        return torch.empty(len(batch), 0)


def brittle(noop: Path, encoder: Encoder, preparer: Preparer | None = None) -> Serving:
    """The no-op release of a directory, made brittle."""
    serving = load_serving(noop)
    predictor = replace(serving.predictor, preparer=preparer or BrittlePreparer())
    assert predictor.category is not None
    assert predictor.attribute is not None
    predictor.category.encoder = predictor.attribute.encoder = encoder
    return replace(serving, predictor=predictor)
