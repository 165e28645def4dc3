"""A product with what is known to be true of it: what training reads and corrections hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.errors import ProductError
from models.product import Product, parse_product
from models.taxonomy import label_id

__all__ = ["LabelledProduct", "parse_labelled"]


@dataclass(frozen=True, slots=True)
class LabelledProduct:
    """A product and what is known to be true of it.

    Attributes:
        category: its category's id.
        attributes: (attribute, value) pairs, each once, in the order given.
    """

    product: Product
    category: str
    attributes: tuple[tuple[str, str], ...]

    @property
    def label_ids(self) -> frozenset[str]:
        """The attributes as label ids; the taxonomy may lack some."""
        return frozenset(label_id(name, value) for name, value in self.attributes)


def parse_labelled(raw: object) -> LabelledProduct:
    """A product as ``parse_product`` takes it, with ``category`` and ``attributes`` beside it.

    Raises:
        ProductError: as ``parse_product``; or category or attributes are not of this form.
    """
    product = parse_product(raw)
    if not isinstance(raw, dict):
        raise TypeError("parse_product takes nothing but objects")
    category = raw.get("category")
    if type(category) is not str or not category:
        raise ProductError("missing_field", "category must be a category's id, not empty")
    pairs = raw.get("attributes")
    if pairs is None:
        pairs = []
    if type(pairs) is not list:
        raise ProductError("wrong_type", "attributes must be a list of {name, value}")
    return LabelledProduct(product, category, tuple(dict.fromkeys(map(_attribute, pairs))))


def _attribute(raw: Any) -> tuple[str, str]:
    if type(raw) is dict:
        name, value = raw.get("name"), raw.get("value")
        if type(name) is str and type(value) is str:
            return name, value
    raise ProductError("wrong_type", f"an attribute is {{name, value}} of texts, got {raw!r:.80}")
