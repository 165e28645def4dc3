"""Noise and additions to a data set's products, each product's own by seed and place.

The noise of dhpc-amazon, B (missing texts, wrong labels), is made to order so that its effect can
be measured; its label-semantic augmentation (D.4) adds products. What happens to a product depends
on the seed, its place in the split and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from models.taxonomy import Taxonomy
from training.data import LabelledProduct
from training.recipe import ChangeSettings

__all__ = ["Changes"]

_SPLITS = {"train": 1, "valid": 2, "test": 3}


class Changes:
    """What a recipe does to the products of each split. Valid and test keep their labels."""

    def __init__(self, settings: ChangeSettings, seed: int, taxonomy: Taxonomy) -> None:
        self._settings = settings
        self._seed = seed
        self._taxonomy = taxonomy
        self._leaves = taxonomy.leaves
        self._known = frozenset(taxonomy.leaves)

    def key(self, split: str) -> list[object] | None:
        """Names what ``of`` does to a split, as JSON has it; None: nothing."""
        in_all = {"dropped_texts": self._settings.dropped_texts}
        used = asdict(self._settings) if split == "train" else in_all
        return [self._seed, used] if any(used.values()) else None

    def of(self, split: str, products: Iterator[LabelledProduct]) -> Iterator[LabelledProduct]:
        """The products as they are to be learned from or measured on; additions follow theirs."""
        if self.key(split) is None:
            yield from products
            return
        settings = self._settings
        for place, item in enumerate(products):
            random = np.random.default_rng([self._seed, _SPLITS.get(split, 0), place])
            # All drawn whatever is used: a share changes which products it is for by no other.
            wrong, dropped, named = random.random(3).tolist()
            if split == "train" and wrong < settings.wrong_labels:
                item = self._wrong(item, random)
            if dropped < settings.dropped_texts and item.product.title:
                item = _title_alone(item, item.product.title)
            yield item
            if split == "train" and named < settings.label_names:
                yield self._named(item, random)

    def _wrong(self, item: LabelledProduct, random: np.random.Generator) -> LabelledProduct:
        others = len(self._leaves) - (item.category in self._known)
        if others < 1:
            return item
        chosen = self._leaves[int(random.integers(others))]
        if chosen == item.category:
            chosen = self._leaves[-1]
        return replace(item, category=chosen)

    def _named(self, item: LabelledProduct, random: np.random.Generator) -> LabelledProduct:
        """A copy whose shuffled title holds its leaf's name, as training knows it (D.4)."""
        words = item.product.title.split()
        random.shuffle(words)
        if item.category in self._taxonomy.categories:
            name = self._taxonomy.categories[item.category].name_in(item.product.locale)
            words.insert(int(random.integers(len(words) + 1)), name)
        return _title_alone(item, " ".join(words))


def _title_alone(item: LabelledProduct, title: str) -> LabelledProduct:
    product = replace(item.product, title=title, description="", bullets=())
    return replace(item, product=product)
