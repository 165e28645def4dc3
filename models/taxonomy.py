"""The taxonomy: a tree of categories, attributes with values, and which labels are relevant where.

A label is a pair (attribute, value); ``relevant`` is the attribute taxonomy of the label-masking
paper (ave-label-masking, section 3): the pairs that products of a category can take.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.labels import LabelSpace, Masks

__all__ = [
    "Attribute",
    "Category",
    "Label",
    "Relevant",
    "Taxonomy",
    "Value",
    "attribute_rows",
    "compile_mask",
    "compile_masks",
    "label_id",
    "load_taxonomy",
    "localized",
]


class Category(NamedTuple):
    """A node of the tree. ``parent`` is None for a department; ``names`` are by locale."""

    id: str
    name: str
    parent: str | None
    names: Mapping[str, str]

    def name_in(self, locale: str) -> str:
        """The name in ``locale``, else the default one."""
        return localized(self.name, self.names, locale)


class Value(NamedTuple):
    """One value of an attribute; its id is unique within the attribute."""

    id: str
    name: str
    names: Mapping[str, str]


class Attribute(NamedTuple):
    """An attribute and its values, in file order.

    ``values_from`` names the attribute whose values it shares, where the file says so.
    """

    id: str
    name: str
    names: Mapping[str, str]
    values: tuple[Value, ...]
    values_from: str | None


class Label(NamedTuple):
    """A pair (attribute, value); ``attribute`` and ``value`` are names for people."""

    id: str
    attribute_id: str
    attribute: str
    value_id: str
    value: str


# Of one category: attribute id -> value ids, or None for all values of the attribute.
Relevant = Mapping[str, tuple[str, ...] | None]


def label_id(attribute_id: str, value_id: str) -> str:
    """``attribute=value``; a ``=`` or ``%`` of the attribute id is percent-escaped.

    Injective: the attribute ends at the first ``=``, so the value needs no escape.
    """
    return f"{attribute_id.replace('%', '%25').replace('=', '%3D')}={value_id}"


def localized(name: str, names: Mapping[str, str], locale: str) -> str:
    """The name for a BCP 47 tag: of that tag, else of its language, else ``name``."""
    if not names:
        return name
    locale = locale.lower()
    if locale in names:
        return names[locale]
    language = locale.partition("-")[0]
    return next((names[tag] for tag in names if tag.partition("-")[0] == language), name)


@dataclass(frozen=True)
class Taxonomy:
    """A checked taxonomy. Nothing in it changes after it is made.

    Make one with ``load_taxonomy``, ``from_json`` or ``models.taxonomies``: they check everything.
    An unknown id raises ``KeyError``.

    Args:
        name: of the taxonomy.
        version: never empty; part of the keys of cached masks.
        locale: BCP 47 tag, lower case, of the default names; "" where unknown.
        categories: by id, in file order.
        attributes: by id, in file order.
        relevant: by category id; each category's own entry, inner nodes pass nothing down.
    """

    name: str
    version: str
    locale: str
    categories: Mapping[str, Category]
    attributes: Mapping[str, Attribute]
    relevant: Mapping[str, Relevant]

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    @classmethod
    def from_json(cls, data: bytes, source: str = "taxonomy") -> Taxonomy:
        """Parse and check the project's own JSON; ``source`` names it in messages.

        Raises:
            TaxonomyError: with every problem found.
        """
        from models.taxonomies.native import parse_native  # it builds on this module

        return parse_native(data, source)

    def to_json(self) -> bytes:
        """The project's own JSON, UTF-8; ``from_json`` gives an equal taxonomy back."""
        from models.taxonomies.native import dump_native

        return dump_native(self)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Ids of the categories without children, in file order."""
        inner = {category.parent for category in self.categories.values()}
        return tuple(category_id for category_id in self.categories if category_id not in inner)

    @cached_property
    def departments(self) -> tuple[str, ...]:
        """Ids of the roots, in file order."""
        return tuple(c.id for c in self.categories.values() if c.parent is None)

    @cached_property
    def locales(self) -> tuple[str, ...]:
        """Locales that any name is given in, sorted, the default one included."""
        tags = {tag for category in self.categories.values() for tag in category.names}
        for attribute in self.attributes.values():
            tags.update(attribute.names)
            for value in attribute.values:
                tags.update(value.names)
        return tuple(sorted(tags | {self.locale} - {""}))

    def path(self, category_id: str) -> tuple[Category, ...]:
        """The category and its ancestors, root first."""
        cached = self._paths.get(category_id)
        if cached is not None:
            return cached
        upwards = [self.categories[category_id]]
        while (parent := upwards[-1].parent) is not None:
            upwards.append(self.categories[parent])
        path = self._paths[category_id] = tuple(reversed(upwards))
        return path

    def department_of(self, category_id: str) -> str:
        """Id of the category's root; a root is its own department."""
        return self._departments[category_id]

    def label_ids(self) -> tuple[str, ...]:
        """Every label, ordered by attribute, then by value, as in the file."""
        return self._label_ids

    def label(self, label_id: str) -> Label:
        """The attribute and the value of a label id, with their default names."""
        return self._labels[label_id]

    def relevant_label_ids(self, category_id: str) -> tuple[str, ...]:
        """The labels relevant to a category, in the order of ``label_ids``."""
        label_ids = self.label_ids()
        return tuple(label_ids[number] for number in self.label_numbers(category_id).tolist())

    def label_numbers(self, category_id: str) -> NDArray[np.int64]:
        """Where the labels relevant to a category stand in ``label_ids``: [n], int64, sorted."""
        if category_id not in self.categories:
            raise KeyError(category_id)
        blocks: list[NDArray[np.int64]] = []
        for attribute_id, value_ids in self.relevant.get(category_id, {}).items():
            first = self._first_label[attribute_id]
            if value_ids is None:
                end = first + len(self.attributes[attribute_id].values)
                blocks.append(np.arange(first, end, dtype=np.int64))
            else:
                rank = self._value_ranks[attribute_id]
                ranks = [rank[value_id] for value_id in value_ids]
                blocks.append(np.array(ranks, dtype=np.int64) + first)
        if not blocks:
            return np.empty(0, dtype=np.int64)
        return np.sort(np.concatenate(blocks))

    @cached_property
    def _paths(self) -> dict[str, tuple[Category, ...]]:
        return {}  # filled by path()

    @cached_property
    def _departments(self) -> Mapping[str, str]:
        department_of: dict[str, str] = {}
        for start in self.categories:
            trail = []
            node = start
            while node not in department_of:
                trail.append(node)
                parent = self.categories[node].parent
                if parent is None:
                    department_of[node] = node
                else:
                    node = parent
            department_of.update(dict.fromkeys(trail, department_of[node]))
        return department_of

    @cached_property
    def _label_ids(self) -> tuple[str, ...]:
        return tuple(label_id(a.id, v.id) for a in self.attributes.values() for v in a.values)

    @cached_property
    def _labels(self) -> Mapping[str, Label]:
        pairs = ((a, v) for a in self.attributes.values() for v in a.values)
        return {
            each: Label(each, a.id, a.name, v.id, v.name)
            for each, (a, v) in zip(self._label_ids, pairs, strict=True)
        }

    @cached_property
    def _first_label(self) -> Mapping[str, int]:
        sizes = [len(attribute.values) for attribute in self.attributes.values()]
        return dict(zip(self.attributes, accumulate(sizes, initial=0), strict=False))

    @cached_property
    def _value_ranks(self) -> Mapping[str, Mapping[str, int]]:
        return {
            attribute.id: {value.id: rank for rank, value in enumerate(attribute.values)}
            for attribute in self.attributes.values()
        }


def load_taxonomy(path: Path | str) -> Taxonomy:
    """Read the project's own JSON from a ``.json`` or ``.json.gz`` file.

    Raises:
        TaxonomyError: with every problem found, an unreadable file included.
    """
    from models.taxonomies.native import import_native  # it builds on this module

    return import_native(Path(path))


def compile_masks(
    taxonomy: Taxonomy, category_ids: Sequence[str], label_space: LabelSpace
) -> Masks:
    """The masks of many categories, a row each in the order given.

    Labels that the label space lacks are left out: no model output stands for them.

    Raises:
        KeyError: a category that the taxonomy lacks.
    """
    rows_of_labels = _rows_of_labels(taxonomy, label_space)
    known: dict[tuple[object, ...], NDArray[np.uint32]] = {}  # siblings often share one entry
    rows = []
    for category_id in category_ids:
        entry = tuple(taxonomy.relevant.get(category_id, {}).items())
        mask = known.get(entry) if category_id in taxonomy.categories else None
        if mask is None:
            mask = known[entry] = _kept(rows_of_labels[taxonomy.label_numbers(category_id)])
        rows.append(mask)
    return Masks.from_rows(rows, len(label_space))


def compile_mask(
    taxonomy: Taxonomy, category_id: str, label_space: LabelSpace
) -> NDArray[np.uint32]:
    """The mask of one category: its row of ``compile_masks``, for a cost that grows with it alone.

    Raises:
        KeyError: a category that the taxonomy lacks.
    """
    rows = [label_space.row_of.get(each, -1) for each in taxonomy.relevant_label_ids(category_id)]
    return _kept(np.array(rows, dtype=np.int64))


def attribute_rows(
    taxonomy: Taxonomy, label_space: LabelSpace, attribute_ids: Collection[str]
) -> list[int]:
    """Each label's attribute by its number in the taxonomy, [L]; -1: not among the ids."""
    kept = frozenset(attribute_ids)
    number_of = {each: number for number, each in enumerate(taxonomy.attributes) if each in kept}
    return [number_of.get(taxonomy.label(each).attribute_id, -1) for each in label_space.ids]


def _rows_of_labels(taxonomy: Taxonomy, label_space: LabelSpace) -> NDArray[np.int64]:
    row_of = label_space.row_of
    return np.array([row_of.get(each, -1) for each in taxonomy.label_ids()], dtype=np.int64)


def _kept(rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    return np.sort(rows[rows >= 0]).astype(np.uint32)
