"""A release of a system, trained on the small shop as a recipe would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.release import Release, read_release
from tests.tiny_shop import write_shop
from training.data import DataSet
from training.recipe import FlagshipSettings, LoopSettings, Rates, Recipe, SystemSettings
from training.run import run

__all__ = ["shop_recipe", "small_flagship", "train_on_shop"]


def small_flagship(encoder: Path | None = None, **changes: Any) -> FlagshipSettings:
    """What learns the shop in a few epochs: a bag of few buckets, with an encoder or without."""
    settings = FlagshipSettings(
        kind="flagship",
        encoder="none" if encoder is None else str(encoder),
        max_tokens=24,
        hash_buckets=2048,
        bag_dim=16,
        rates=Rates(heads=1e-2, bag=5e-2),
        # So few texts show nothing surely.
        target_confidence=0.5,
    )
    return replace(settings, **changes)


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
