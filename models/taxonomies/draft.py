"""A taxonomy in the making: takes what an importer read, and reports everything that is wrong.

Importers add records with the place they stood at; ``build`` checks what only the whole can show
(parents, cycles, references) and raises one ``TaxonomyError`` with all problems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.errors import TaxonomyError
from models.taxonomy import Attribute, Category, Relevant, Taxonomy, Value

__all__ = ["NO_NAMES", "Draft", "Place"]

NO_NAMES: Mapping[str, str] = MappingProxyType({})

# Control characters break logs and terminals; lone surrogates cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LOCALE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
# A longer cycle is cut in the message.
_MAX_SHOWN = 8


class Place(NamedTuple):
    """Where a record stands: ``file:line`` or ``file: list[index]``, put together when shown."""

    before: str
    number: int
    after: str = ""

    def __str__(self) -> str:
        return f"{self.before}{self.number}{self.after}"


class Draft:
    """Collects records and problems; makes the taxonomy at the end.

    Args:
        source: names the whole in messages that have no narrower place.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = ""
        self.version = ""
        self.locale = ""
        self.problems: list[str] = []
        # A file could not be read: what refers to it cannot be judged.
        self.incomplete = False
        self._categories: dict[str, Category] = {}
        self._attributes: dict[str, Attribute] = {}
        self._relevant: dict[str, Relevant] = {}
        self._places: dict[tuple[str, str], Place] = {}

    def problem(self, place: Place | str, text: str) -> None:
        """Note one problem."""
        self.problems.append(f"{place}: {text}")

    def unreadable(self, place: Place | str, text: str) -> None:
        """Note that a whole file is missing or broken."""
        self.problem(place, text)
        self.incomplete = True

    def text(self, place: Place | str, field: str, value: object) -> str | None:
        """``value`` where it is a name or an id; else a problem and None."""
        if type(value) is not str:
            self.problem(place, f"{field} must be a string, got {_kind(value)}")
            return None
        if not value.strip():
            self.problem(place, f"{field} is empty")
            return None
        if _FORBIDDEN.search(value):
            self.problem(place, f"{field} {value!r} holds a control character or a lone surrogate")
            return None
        return value

    def names(self, place: Place | str, value: object) -> Mapping[str, str]:
        """Names by locale (tags lower-cased) of a mapping; absent or null: none."""
        if value is None or value is NO_NAMES:
            return NO_NAMES
        if not isinstance(value, Mapping):
            self.problem(place, f"names must map locales to names, got {_kind(value)}")
            return NO_NAMES
        names: dict[str, str] = {}
        for tag, name in value.items():
            locale = tag.lower() if isinstance(tag, str) else ""
            if not _LOCALE.fullmatch(locale):
                self.problem(place, f"names: {tag!r} is not a locale such as 'ja' or 'pt-br'")
            elif locale in names:
                self.problem(place, f"names: locale {locale!r} occurs twice")
            elif (text := self.text(place, f"names: {locale}", name)) is not None:
                names[locale] = text
        return MappingProxyType(names) if names else NO_NAMES

    def head(self, name: object, version: object, locale: object = "") -> None:
        """Name, version and locale of the default names."""
        self.name = self.text(self.source, "name", name) or ""
        self.version = self.text(self.source, "version", version) or ""
        if locale == "" or (isinstance(locale, str) and _LOCALE.fullmatch(locale.lower())):
            self.locale = str(locale).lower()
        else:
            self.problem(self.source, f"locale {locale!r} is not a tag such as 'en' or 'ja'")

    def category(
        self, place: Place, category_id: object, name: object, parent: object, names: object = None
    ) -> None:
        """Add one category."""
        checked = self.text(place, "category id", category_id)
        if checked is None:
            return
        shown = self.text(place, f"name of category {checked!r}", name) or ""
        if parent is not None and self.text(place, f"parent of {checked!r}", parent) is None:
            parent = None
        if self._is_new("category", checked, place):
            above = parent if isinstance(parent, str) else None
            self._categories[checked] = Category(checked, shown, above, self.names(place, names))

    def value(
        self, place: Place, value_id: object, name: object, names: object = None
    ) -> Value | None:
        """Make one value; ``attribute`` checks that its id is unique there."""
        checked = self.text(place, "value id", value_id)
        shown = self.text(place, f"name of value {checked!r}", name)
        if checked is None or shown is None:
            return None
        return Value(checked, shown, self.names(place, names))

    def attribute(
        self,
        place: Place,
        attribute_id: object,
        name: object,
        values: Sequence[Value],
        names: object = None,
        values_from: object = None,
    ) -> None:
        """Add one attribute, with values of its own or another's (``values_from``)."""
        checked = self.text(place, "attribute id", attribute_id)
        if checked is None:
            return
        shown = self.text(place, f"name of attribute {checked!r}", name) or ""
        origin = None
        if values_from is not None:
            origin = self.text(place, f"values_from of {checked!r}", values_from)
            if values:
                self.problem(place, f"attribute {checked!r} has both values and values_from")
        if len({value.id for value in values}) < len(values):
            for twice in _repeated([value.id for value in values]):
                self.problem(place, f"attribute {checked!r} has the value {twice!r} twice")
        if self._is_new("attribute", checked, place):
            self._attributes[checked] = Attribute(
                checked, shown, self.names(place, names), tuple(values), origin
            )

    def relevant(self, place: Place | str, category_id: str, entry: object) -> None:
        """Add a category's relevant labels: attribute id -> list of value ids, or True for all."""
        if not isinstance(entry, dict):
            self.problem(place, f"must map attributes to values, got {_kind(entry)}")
            return
        kept: dict[str, tuple[str, ...] | None] = {}
        for attribute_id, values in entry.items():
            if values is True:
                kept[attribute_id] = None
            elif isinstance(values, list) and all(type(value) is str for value in values):
                kept[attribute_id] = tuple(values)
                if len(set(values)) < len(values):
                    for twice in _repeated(values):
                        self.problem(place, f"attribute {attribute_id!r} lists {twice!r} twice")
            else:
                self.problem(
                    place,
                    f"attribute {attribute_id!r} must have a list of value ids, "
                    f"or true for all of its values, got {_kind(values)}",
                )
        if kept:
            self._relevant[category_id] = MappingProxyType(kept)
            if isinstance(place, Place):
                self._places["relevant", category_id] = place

    def build(self) -> Taxonomy:
        """Check the whole and make the taxonomy.

        Raises:
            TaxonomyError: with every problem, those noted before included.
        """
        if not self._categories and not self.problems:
            self.problem(self.source, "holds no category")
        if not self.incomplete:
            self._check_parents()
            self._share_values()
            self._check_relevant()
        self._check_cycles()
        if self.problems:
            raise TaxonomyError(self.problems)
        return Taxonomy(
            self.name,
            self.version,
            self.locale,
            MappingProxyType(self._categories),
            MappingProxyType(self._attributes),
            MappingProxyType(self._relevant),
        )

    def _is_new(self, kind: str, record_id: str, place: Place) -> bool:
        first = self._places.setdefault((kind, record_id), place)
        if first is place:
            return True
        self.problem(place, f"{kind} {record_id!r} is defined twice, first at {first}")
        return False

    def _check_parents(self) -> None:
        for category in self._categories.values():
            if category.parent is not None and category.parent not in self._categories:
                place = self._places["category", category.id]
                self.problem(place, f"parent {category.parent!r} of {category.id!r} is not defined")

    def _check_cycles(self) -> None:
        settled: set[str] = set()
        for start in self._categories:
            trail: dict[str, None] = {}
            node: str | None = start
            while node in self._categories and node not in settled and node not in trail:
                trail[node] = None
                node = self._categories[node].parent
            if node in trail:
                ids = list(trail)
                cycle = ids[ids.index(node) :]
                shown = " -> ".join(cycle[:_MAX_SHOWN])
                if len(cycle) > _MAX_SHOWN:
                    shown += " -> ..."
                place = self._places["category", node]
                self.problem(place, f"a cycle of {len(cycle)} parents: {shown} -> {node}")
            settled.update(trail)

    def _share_values(self) -> None:
        # Where the chain of each attribute ends, and what is wrong with it, if anything is.
        ends: dict[str, tuple[str, str]] = {}
        for start in list(self._attributes.values()):
            trail: dict[str, None] = {}
            node: str | None = start.id
            while node is not None and node not in ends and node not in trail:
                attribute = self._attributes.get(node)
                if attribute is None:
                    ends[node] = node, f": attribute {node!r} is not defined"
                    break
                trail[node] = None
                node = attribute.values_from
            if node is None:
                end = next(reversed(trail)), ""
            else:
                end = (node, f" leads back to {node!r}") if node in trail else ends[node]
            is_circle = False
            for each in trail:
                is_circle = is_circle or each == node
                ends[each] = (each, f" leads back to {each!r}") if is_circle else end
        for attribute in list(self._attributes.values()):
            if attribute.values_from is None:
                continue
            place = self._places["attribute", attribute.id]
            origin, wrong = ends[attribute.id]
            if wrong:
                self.problem(place, f"values_from of {attribute.id!r}{wrong}")
            else:
                values = self._attributes[origin].values
                self._attributes[attribute.id] = attribute._replace(values=values)

    def _check_relevant(self) -> None:
        value_ids: dict[str, set[str]] = {}
        for category_id, entry in self._relevant.items():
            place = self._places.get(("relevant", category_id), f"{self.source}: relevant")
            if category_id not in self._categories:
                self.problem(place, f"category {category_id!r} is not defined")
            for attribute_id, wanted in entry.items():
                attribute = self._attributes.get(attribute_id)
                if attribute is None:
                    self.problem(
                        place,
                        f"attribute {attribute_id!r} of category {category_id!r} is not defined",
                    )
                elif wanted is not None:
                    if attribute_id not in value_ids:
                        value_ids[attribute_id] = {value.id for value in attribute.values}
                    for unknown in sorted(set(wanted) - value_ids[attribute_id]):
                        self.problem(
                            place,
                            f"category {category_id!r}: {unknown!r} is not a value of "
                            f"attribute {attribute_id!r}",
                        )


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(
        type(value), "a number" if isinstance(value, int | float) else type(value).__name__
    )


def _repeated(ids: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for each in ids:
        if each in seen:
            twice[each] = None
        seen.add(each)
    return list(twice)
