"""Products that a model cannot tell apart: variants of one article, which differ in a colour that
their text does not name.

Read once for all of them they cost one pass, and what they have learned from is one text: an
n-gram that only they hold says nothing of other products, however many variants there are. And
they are right or wrong together, which measures have to know (``training.design_effect``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from models.prepare import Ragged
from models.product import Product

__all__ = ["first_of_each", "same_texts", "text_keys"]


def same_texts(arrays: Mapping[str, Ragged]) -> Ragged:
    """Rows of products by what a model reads of them.

    Args:
        arrays: as prepared, each with N rows.

    Returns:
        A row for each distinct text, in the order of their first products: the rows of its
        products, int64, rising; N in all.
    """
    num_products = max((len(each) for each in arrays.values()), default=0)
    text_of: dict[bytes, int] = {}
    texts = np.empty(num_products, dtype=np.int64)
    for row in range(num_products):
        parts = (
            ragged.values[ragged.indptr[row] : ragged.indptr[row + 1]].tobytes()
            for ragged in arrays.values()
        )
        texts[row] = text_of.setdefault(_digest(parts, 16), len(text_of))
    indptr = np.zeros(len(text_of) + 1, dtype=np.int64)
    np.cumsum(np.bincount(texts, minlength=len(text_of)), out=indptr[1:])
    return Ragged(np.argsort(texts, kind="stable").astype(np.int64), indptr)


def first_of_each(texts: Ragged) -> NDArray[np.int64]:
    """The first product of each text, [T]."""
    return texts.values[texts.indptr[:-1]].astype(np.int64, copy=False)


def text_keys(products: Iterable[Product]) -> NDArray[np.int64]:
    """A number for what each product says, [N], int64: the same where all its fields are.

    Whatever a model reads of them: by these, systems that read differently are compared. Variants
    whose titles name a size or a colour differ, and count as texts of their own.
    """
    return np.fromiter(map(_text_key, products), dtype=np.int64)


def _text_key(product: Product) -> int:
    fields = (product.title, product.description, *product.bullets)
    parts = (field.encode("utf-8", "surrogatepass") for field in fields)
    return int.from_bytes(_digest(parts, 8), "little", signed=True)


def _digest(parts: Iterable[bytes], size: int) -> bytes:
    """Of the parts and of where each ends."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
