"""What the flagship reads of a product: token ids, and hashed ids for each of its bags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.hashing import HashingConfig, hash_fields
from models.prepare import Prepared, Ragged
from models.product import Product
from models.tokens import INPUT_IDS, TextTokenizer

__all__ = ["BAG_IDS", "BULLETS_IDS", "HASHED_IDS", "REST_IDS", "FlagshipPreparer"]

HASHED_IDS = "hashed_ids"
REST_IDS = "rest_ids"
BULLETS_IDS = "bullets_ids"
# In the order of the bags.
BAG_IDS = (HASHED_IDS, REST_IDS, BULLETS_IDS)

# Ids of a bag that cost what a token of a small encoder costs: the unit of a batch's budget.
_IDS_PER_TOKEN = 16


class FlagshipPreparer:
    """Products to token ids and hashed ids; a product costs its tokens.

    Args:
        tokenizer: None: there is no encoder, and a product costs what its hashed ids cost.
        rest_hashing: of bullets and description, where they have a bag of their own.
        bullets_hashing: of bullets, where they have one of theirs.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer | None,
        hashing: HashingConfig,
        rest_hashing: HashingConfig | None = None,
        bullets_hashing: HashingConfig | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.hashing = hashing
        self.rest_hashing = rest_hashing
        self.bullets_hashing = bullets_hashing

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """Arrays ``input_ids``, ``hashed_ids``, ``rest_ids``, ``bullets_ids``, int32, a row each.

        Those that the model does not read are not there.
        """
        arrays: dict[str, Ragged] = {}
        if self.tokenizer is not None:
            arrays[INPUT_IDS] = self.tokenizer.encode(products)
        if self.rest_hashing is None:
            fields = [(p.title, " ".join(p.bullets), p.description) for p in products]
            arrays[HASHED_IDS] = hash_fields(fields, self.hashing)
        else:
            arrays[HASHED_IDS] = hash_fields([(p.title,) for p in products], self.hashing)
            bullets = [" ".join(p.bullets) for p in products]
            if self.bullets_hashing is None:
                rest = list(zip(bullets, (p.description for p in products), strict=True))
                arrays[REST_IDS] = hash_fields(rest, self.rest_hashing)
            else:
                arrays[REST_IDS] = hash_fields(
                    [(p.description,) for p in products], self.rest_hashing
                )
                arrays[BULLETS_IDS] = hash_fields([(b,) for b in bullets], self.bullets_hashing)
        if self.tokenizer is not None:
            costs = arrays[INPUT_IDS].lengths
        else:
            hashed = np.stack([ids.lengths for ids in arrays.values()])
            costs = hashed.sum(axis=0) // _IDS_PER_TOKEN
        return Prepared(arrays, np.maximum(costs, 1).astype(np.int32))
