"""Labels of a data set as rows of label spaces.

What a data set says and a taxonomy does not know is counted and said, never silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from models.errors import SortimentError
from models.labels import LabelSpace, Masks
from models.prepare import Ragged
from models.taxonomy import Taxonomy, attribute_rows, compile_masks, label_id
from training.data import LabelledProduct
from training.same_texts import text_keys

__all__ = [
    "Labeller",
    "Oddities",
    "Targets",
    "label_counts",
    "label_spaces",
    "most_values",
]


@dataclass(slots=True)
class Oddities:
    """Counts of what cannot be learned from."""

    products: int = 0
    unknown_categories: int = 0
    """products whose category is not in the taxonomy"""
    inner_categories: int = 0
    """products of a category that has children: no leaf to learn"""
    unknown_attributes: int = 0
    """attribute values that the taxonomy does not define"""
    irrelevant_attributes: int = 0
    """attribute values that the taxonomy does not allow for the product's category"""
    without_attributes: int = 0
    """products left with no attribute to learn from"""

    def lines(self, split: str) -> list[str]:
        """One line for each kind that occurs, for people."""
        said = {
            "unknown_categories": "products of a category that the taxonomy lacks: left out",
            "inner_categories": "products of a category that has children: left out",
            "unknown_attributes": "attribute values that the taxonomy does not define: ignored",
            "irrelevant_attributes": "attribute values not allowed for their category: ignored",
            "without_attributes": "products without a known attribute: no attribute loss",
        }
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        return [f"{split}: {counts[name]:,} {text}" for name, text in said.items() if counts[name]]


@dataclass(frozen=True, slots=True)
class Targets:
    """What each product should be given, N products.

    Args:
        leaves: [N], int64, row in the category space.
        mask_rows: [N], int64, as ``leaves`` where an attribute can be learned, else -1.
        positives: N rows of label rows, int64, each relevant to the product's category.
        texts: [N], int64, equal where the text is the same (``same_texts.text_keys``).
        masks: relevant labels per category row.
    """

    leaves: NDArray[np.int64]
    mask_rows: NDArray[np.int64]
    positives: Ragged
    texts: NDArray[np.int64]
    masks: Masks


def label_spaces(taxonomy: Taxonomy) -> tuple[LabelSpace, LabelSpace]:
    """Categories (all leaves) and labels (all of them) to train for, in the taxonomy's order."""
    return LabelSpace(tuple(taxonomy.leaves)), LabelSpace(tuple(taxonomy.label_ids()))


def most_values(positives: Ragged, taxonomy: Taxonomy, labels: LabelSpace) -> dict[str, int]:
    """The most values of each attribute that one product has; 0: none has any.

    Args:
        positives: rows of rows of ``labels``, each once.
    """
    attributes = list(taxonomy.attributes)
    attribute_of = np.array(attribute_rows(taxonomy, labels, attributes), dtype=np.int64)
    owners = np.repeat(np.arange(len(positives)), positives.lengths)
    of_pairs = attribute_of[np.asarray(positives.values, dtype=np.int64)]
    keys, counts = np.unique(owners * len(attributes) + of_pairs, return_counts=True)
    most = np.zeros(len(attributes), dtype=np.int64)
    np.maximum.at(most, keys % max(1, len(attributes)), counts)
    return dict(zip(attributes, most.tolist(), strict=True))


def label_counts(
    products: Iterable[LabelledProduct], row_of: Mapping[str, int]
) -> NDArray[np.int64]:
    """How many products have each label, [L]; labels without a row are not counted."""
    counts: NDArray[np.int64] = np.zeros(len(row_of), dtype=np.int64)
    for item in products:
        for each in item.label_ids:
            if each in row_of:
                counts[row_of[each]] += 1
    return counts


class Labeller:
    """Labels of products as rows, a chunk at a time; counts what is odd in all of them.

    Attributes:
        masks: relevant labels per category row.
        odd: of all products so far.
    """

    def __init__(self, taxonomy: Taxonomy, categories: LabelSpace, labels: LabelSpace) -> None:
        self._taxonomy = taxonomy
        self._categories = categories
        self._labels = labels
        self.masks = compile_masks(taxonomy, categories.ids, labels)
        self._relevant = [frozenset(self.masks.row(row).tolist()) for row in range(len(self.masks))]
        self.odd = Oddities()
        self._unknown: str | None = None
        self._num_kept = 0

    def targets(self, products: Sequence[LabelledProduct]) -> tuple[list[int], Targets]:
        """Places in ``products`` that have a leaf, and the targets of those products."""
        odd = self.odd
        odd.products += len(products)
        kept: list[int] = []
        leaves: list[int] = []
        mask_rows: list[int] = []
        rows: list[list[int]] = []
        for place, item in enumerate(products):
            leaf = self._categories.row_of.get(item.category)
            if leaf is None:
                inner = item.category in self._taxonomy.categories
                odd.inner_categories += inner
                odd.unknown_categories += not inner
                self._unknown = item.category
                continue
            positives = []
            for attribute, value in item.attributes:
                row = self._labels.row_of.get(label_id(attribute, value))
                if row is None:
                    odd.unknown_attributes += 1
                elif row not in self._relevant[leaf]:
                    odd.irrelevant_attributes += 1
                else:
                    positives.append(row)
            odd.without_attributes += not positives
            kept.append(place)
            leaves.append(leaf)
            mask_rows.append(leaf if positives else -1)
            rows.append(sorted(set(positives)))
        self._num_kept += len(kept)
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        flat = np.array([row for positives in rows for row in positives], dtype=np.int64)
        return kept, Targets(
            np.array(leaves, dtype=np.int64),
            np.array(mask_rows, dtype=np.int64),
            Ragged(flat, indptr),
            text_keys(products[place].product for place in kept),
            self.masks,
        )

    def check(self) -> None:
        """To be called after the last product.

        Raises:
            SortimentError: no product had a leaf of the taxonomy for a category.
        """
        if self.odd.products and not self._num_kept:
            raise SortimentError(
                f"none of {self.odd.products} products has a leaf of the taxonomy "
                f"{self._taxonomy.name!r} for a category, one has {self._unknown!r}: is it the "
                "taxonomy of this data?"
            )
