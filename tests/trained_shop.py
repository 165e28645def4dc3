"""A release of a system, trained on the small shop as a recipe would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.release import Release, read_release
from tests.tiny_shop import write_shop
from training.data import DataSet
from training.recipe import LoopSettings, Recipe, SystemSettings
from training.run import run

__all__ = ["shop_recipe", "train_on_shop"]


def shop_recipe(
    data: Path, room: Path, system: SystemSettings, train: LoopSettings, *, name: str = "shop"
) -> Recipe:
    """A recipe of a run, all of whose files come to lie in ``room``."""
    return Recipe(
        about="",
        data=data,
        out=room / "release",
        name=name,
        cache=room / "cache",
        progress=False,
        seed=5,
        system=system,
        train=train,
    )


def train_on_shop(
    folder: Path, system: SystemSettings, *, epochs: int = 2, batch_size: int = 32
) -> tuple[Release, DataSet]:
    """The release, and the data set that it was trained on; both lie in ``folder``."""
    data = write_shop(folder / "shop")
    recipe = shop_recipe(data, folder, system, LoopSettings(epochs=epochs, batch_size=batch_size))
    run(replace(recipe, device="cpu"), lambda _line: None)
    return read_release(recipe.out), DataSet(data)
