"""What the flagship reads of a product: token ids, and hashed ids for each of its bags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.hashing import HashingConfig, hash_fields
from models.prepare import Prepared, Ragged
from models.product import Product
from models.tokens import INPUT_IDS, TextTokenizer

__all__ = ["BAG_IDS", "BULLETS_IDS", "HASHED_IDS", "REST_IDS", "WHOLE_IDS", "FlagshipPreparer"]

HASHED_IDS = "hashed_ids"
REST_IDS = "rest_ids"
BULLETS_IDS = "bullets_ids"
WHOLE_IDS = "whole_ids"
# In the order of the bags.
BAG_IDS = (HASHED_IDS, REST_IDS, BULLETS_IDS, WHOLE_IDS)

# Ids of a bag that cost what a token of a small encoder costs: the unit of a batch's budget.
_IDS_PER_TOKEN = 16


class FlagshipPreparer:
    """Products to token ids and hashed ids; a product costs its tokens.

    Args:
        tokenizer: None: there is no encoder, and a product costs what its hashed ids cost.
        hashings: by the name of the array. ``hashed_ids`` are of all fields, or of the title where
            there are ``rest_ids``; these are of description and bullets, or of the description
            where there are ``bullets_ids``; ``whole_ids`` are of all fields.
    """

    def __init__(
        self, tokenizer: TextTokenizer | None, hashings: Mapping[str, HashingConfig]
    ) -> None:
        self.tokenizer = tokenizer
        self.hashings = hashings

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """Arrays of token ids, ``input_ids``, and of hashed ids, int32, a row for each product.

        Those that the model does not read are not there.
        """
        arrays: dict[str, Ragged] = {}
        if self.tokenizer is not None:
            arrays[INPUT_IDS] = self.tokenizer.encode(products)
        texts = [(p.title, " ".join(p.bullets), p.description) for p in products]
        for name, hashing in self.hashings.items():
            fields = self._fields(name)
            arrays[name] = hash_fields([tuple(text[f] for f in fields) for text in texts], hashing)
        if self.tokenizer is not None:
            costs = arrays[INPUT_IDS].lengths
        else:
            hashed = np.stack([ids.lengths for ids in arrays.values()])
            costs = hashed.sum(axis=0) // _IDS_PER_TOKEN
        return Prepared(arrays, np.maximum(costs, 1).astype(np.int32))

    def _fields(self, name: str) -> tuple[int, ...]:
        """Which of title, bullets and description an array is made of."""
        if name == WHOLE_IDS or REST_IDS not in self.hashings:
            return (0, 1, 2)
        if name == REST_IDS:
            return (2,) if BULLETS_IDS in self.hashings else (1, 2)
        return (1,) if name == BULLETS_IDS else (0,)
