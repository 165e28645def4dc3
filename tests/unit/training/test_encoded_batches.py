from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.prepare import Prepared, Ragged
from models.release import Release, read_release
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import shop_recipe
from training.encoded_batches import EncodedBatches
from training.recipe import AveBertSettings, LoopSettings
from training.run import run


@dataclass
class Counting:
    """An encoder that says how often it was asked."""

    asked: int = 0

    def encode(self, batch: Prepared) -> Tensor:
        self.asked += 1
        return torch.full((len(batch), 1), float(self.asked))


def batch_of(*rows: list[int]) -> Prepared:
    indptr = np.cumsum([0, *map(len, rows)])
    values = np.array([each for row in rows for each in row], dtype=np.int32)
    return Prepared({"input_ids": Ragged(values, indptr)}, np.ones(len(rows), dtype=np.int32))


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """Releases of one frozen encoder, with and without masking."""
    folder = tmp_path_factory.mktemp("rows")
    encoder = save_tiny_bert(folder / "encoder", hidden=32)
    found = []
    for masking in (True, False):
        recipe = shop_recipe(
            data,
            folder / str(masking),
            AveBertSettings(
                kind="ave_bert",
                encoder=str(encoder),
                gear="frozen",
                max_tokens=24,
                cls_layers=2,
                masking=masking,
            ),
            LoopSettings(epochs=1, batch_size=64, patience=None),
        )
        run(recipe, lambda _line: None)
        found.append(read_release(recipe.out))
    return found[0], found[1]


def test_a_batch_is_encoded_once_for_all_rows(rows: tuple[Release, Release]) -> None:
    encoded = EncodedBatches()
    first, second = Counting(), Counting()
    one = encoded.around(rows[0], first).encode(batch_of([1, 2], [3]))
    other = encoded.around(rows[1], second).encode(batch_of([1, 2], [3]))
    assert (first.asked, second.asked) == (1, 0)
    assert torch.equal(one, other)


def test_other_products_are_encoded(rows: tuple[Release, Release]) -> None:
    asked = Counting()
    encoder = EncodedBatches().around(rows[0], asked)
    for batch in (batch_of([1, 2], [3]), batch_of([1], [2, 3]), batch_of([1, 2], [4])):
        encoder.encode(batch)
    assert asked.asked == 3


def test_another_encoder_encodes_again(rows: tuple[Release, Release]) -> None:
    encoded = EncodedBatches()
    first, second = Counting(), Counting()
    encoded.around(rows[0], first).encode(batch_of([1]))
    config = {**rows[0].config, "max_tokens": 8}
    encoded.around(replace(rows[0], config=config), second).encode(batch_of([1]))
    assert (first.asked, second.asked) == (1, 1)
