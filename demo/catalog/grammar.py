"""The sample catalog's words, read from the YAML files beside this module, and its taxonomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml

from models.taxonomy import Taxonomy

__all__ = ["Attribute", "Grammar", "Leaf", "Locale", "Phrases", "Value", "load_grammar"]

Locale = Literal["en", "ja"]
Texts = Mapping[Locale, tuple[str, ...]]

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Value:
    """One value; ``forms`` are how texts say it, the first Japanese one is its name there."""

    name: str
    forms: Texts


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute; its texts say its value in ``visible`` (a share) of the products."""

    name: str
    name_ja: str
    visible: float
    say: Texts
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf; ``values`` are its relevant value names by attribute name, frequent ones first."""

    id: str
    group_id: str
    nouns: Texts
    hints: Texts
    brands: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Phrases:
    """What sellers write around a product, by kind."""

    adjectives: Texts
    titles: Texts
    shop_marks: Texts
    openings: Texts
    boilerplate: Texts
    misleading: Texts
    katakana_brands: Mapping[str, str]


@dataclass(frozen=True)
class Grammar:
    """Everything that a sample product is made from. Leaves and attributes in file order."""

    taxonomy: Taxonomy
    leaves: tuple[Leaf, ...]
    attributes: Mapping[str, Attribute]
    phrases: Phrases


def load_grammar() -> Grammar:
    """Read the YAML files.

    Raises:
        KeyError: a category names an attribute or a value that ``attributes.yaml`` does not define.
        TaxonomyError: with every problem of the taxonomy that the files make.
    """
    raw_attributes = _read("attributes.yaml")
    raw_categories = _read("categories.yaml")
    raw_phrases = _read("phrases.yaml")
    by_key = {key: _attribute(raw) for key, raw in raw_attributes.items()}
    leaves = []
    categories: list[dict[str, Any]] = []
    for department_key, department in raw_categories.items():
        categories.append(_category(department_key, department, None))
        for group_key, group in department["groups"].items():
            group_id = f"{department_key}/{group_key}"
            categories.append(_category(group_id, group, department_key))
            for leaf_key, leaf in group["leaves"].items():
                leaf_id = f"{group_id}/{leaf_key}"
                categories.append(_category(leaf_id, leaf, group_id))
                relevant = {**group.get("attributes", {}), **leaf.get("attributes", {})}
                leaves.append(
                    Leaf(
                        leaf_id,
                        group_id,
                        _texts(leaf["nouns"]),
                        _texts(leaf["hints"]),
                        tuple(department["brands"]),
                        dict(_relevant(by_key[key], names) for key, names in relevant.items()),
                    )
                )
    attributes = {attribute.name: attribute for attribute in by_key.values()}
    phrases = Phrases(
        **{kind: _texts(raw) for kind, raw in raw_phrases.items() if kind != "katakana_brands"},
        katakana_brands=raw_phrases["katakana_brands"],
    )
    taxonomy = _taxonomy(categories, attributes, leaves)
    return Grammar(taxonomy, tuple(leaves), attributes, phrases)


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_HERE / name).read_text(encoding="utf-8"))
    return loaded


def _texts(raw: Mapping[str, list[str]]) -> Texts:
    return {"en": tuple(raw["en"]), "ja": tuple(raw["ja"])}


def _attribute(raw: Mapping[str, Any]) -> Attribute:
    values = {name: Value(name, _texts(forms)) for name, forms in raw["values"].items()}
    return Attribute(raw["en"], raw["ja"], raw["visible"], _texts(raw["say"]), values)


def _relevant(attribute: Attribute, names: str | list[str]) -> tuple[str, tuple[str, ...]]:
    chosen = tuple(attribute.values) if names == "all" else tuple(names)
    for name in chosen:
        if name not in attribute.values:
            raise KeyError(f"attribute {attribute.name!r} has no value {name!r}")
    return attribute.name, chosen


def _category(category_id: str, raw: Mapping[str, Any], parent: str | None) -> dict[str, Any]:
    names = {"ja": raw["ja"]}
    return {"id": category_id, "name": raw["en"], "parent": parent, "names": names}


def _taxonomy(
    categories: list[dict[str, Any]], attributes: Mapping[str, Attribute], leaves: list[Leaf]
) -> Taxonomy:
    document = {
        "name": "sample-catalog",
        "version": "1",
        "locale": "en",
        "categories": categories,
        "attributes": [
            {
                "name": attribute.name,
                "names": {"ja": attribute.name_ja},
                "values": [
                    {"id": value.name, "name": value.name, "names": {"ja": value.forms["ja"][0]}}
                    for value in attribute.values.values()
                ],
            }
            for attribute in attributes.values()
        ],
        "relevant": {leaf.id: leaf.values for leaf in leaves},
    }
    return Taxonomy.from_json(orjson.dumps(document), "the sample catalog")
