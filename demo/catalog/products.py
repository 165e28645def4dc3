"""Sample products: a leaf, values, and the texts that say some of it.

The shares below make a catalog that a good model gets mostly right: about one product in seven has
no description, about one attribute in six is not in the text, and some labels are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from demo.catalog.grammar import Grammar, Leaf, Locale
from demo.catalog.noise import full_width, half_width_katakana, mark_up, shuffle_words, typo

__all__ = ["ProductMaker"]

_JAPANESE = 0.3
_NO_DESCRIPTION = 0.15
_NOUN_IN_TITLE = 0.88
_MISLEADING = 0.12
_ATTRIBUTE_KNOWN = 0.93
_FOREIGN_BRAND = 0.08
# Sellers put products into a leaf next to the right one.
_WRONG_LEAF = 0.025


@dataclass(slots=True)
class _Draft:
    """A product's texts while they are written; without ``described`` the sentences are lost."""

    title: str
    sentences: list[str]
    bullets: list[str]
    described: bool


class ProductMaker:
    """Makes products, one after another, from one random stream.

    Args:
        grammar: the words.
        rng: the only source of chance: the same seed gives the same products.
    """

    def __init__(self, grammar: Grammar, rng: Random) -> None:
        self._grammar = grammar
        self._rng = rng
        self._brands = sorted({brand for leaf in grammar.leaves for brand in leaf.brands})
        self._siblings = {
            leaf.id: [other for other in grammar.leaves if other.group_id == leaf.group_id]
            for leaf in grammar.leaves
        }
        # Uneven classes, as everywhere: the rarest leaf gets about a fifth of the commonest.
        ranks = list(range(1, len(grammar.leaves) + 1))
        rng.shuffle(ranks)
        self._weights = [rank**-0.4 for rank in ranks]

    def make(self, product_id: str) -> dict[str, Any]:
        """One product with its labels, as a line of ``train.jsonl.gz``."""
        rng = self._rng
        locale: Locale = "ja" if rng.random() < _JAPANESE else "en"
        leaf = rng.choices(self._grammar.leaves, self._weights)[0]
        values = self._values(leaf)
        draft = self._write(leaf, values, locale)
        self._spoil(draft, locale)
        description = self._description(draft, locale)
        labelled = leaf
        if rng.random() < _WRONG_LEAF:
            labelled = rng.choice(self._siblings[leaf.id])
        return {
            "product_id": product_id,
            "locale": locale,
            "title": draft.title,
            "description": description,
            "bullets": draft.bullets,
            "image": None,
            "category": labelled.id,
            "attributes": [
                {"name": name, "value": value}
                for name, value in values.items()
                if value in labelled.values.get(name, ())
            ],
        }

    def _values(self, leaf: Leaf) -> dict[str, str]:
        rng = self._rng
        chosen = {}
        for name, values in leaf.values.items():
            weights = [(rank + 1) ** -1.4 for rank in range(len(values))]
            value = rng.choices(values, weights)[0]
            if rng.random() < _ATTRIBUTE_KNOWN:
                chosen[name] = value
        return chosen

    def _write(self, leaf: Leaf, values: dict[str, str], locale: Locale) -> _Draft:
        rng, phrases = self._rng, self._grammar.phrases
        noun = self._noun(leaf, locale)
        brand = rng.choice(self._brands if rng.random() < _FOREIGN_BRAND else leaf.brands)
        if locale == "ja" and rng.random() < 0.6:
            brand = phrases.katakana_brands.get(brand, brand)
        in_title = rng.random() < _NOUN_IN_TITLE
        template = rng.choice(phrases.titles[locale])
        title = template.format(
            brand=brand,
            model=self._model(),
            adjective=rng.choice(phrases.adjectives[locale]),
            noun=noun if in_title else "",
        )
        draft = _Draft(" ".join(title.split()), [], [], rng.random() >= _NO_DESCRIPTION)
        if not in_title or rng.random() < 0.8:
            hint = rng.choice(leaf.hints[locale])
            opening = rng.choice(phrases.openings[locale])
            draft.sentences.append(opening.format(noun=self._noun(leaf, locale), hint=hint))
        for name, value in values.items():
            self._say(draft, name, value, locale)
        return draft

    def _say(self, draft: _Draft, name: str, value: str, locale: Locale) -> None:
        rng, attribute = self._rng, self._grammar.attributes[name]
        if rng.random() >= attribute.visible:
            return
        form = rng.choice(attribute.values[value].forms[locale])
        # A seller who writes no description says more in the title.
        place = rng.random() * (1.0 if draft.described else 0.6)
        if place < 0.3:
            draft.title += f" {form}"
        elif place < 0.8:
            sentence = rng.choice(attribute.say[locale]).format(form)
            draft.sentences.append(sentence[:1].upper() + sentence[1:])
        else:
            shown = attribute.name if locale == "en" else attribute.name_ja
            draft.bullets.append(f"{shown}: {form}")

    def _spoil(self, draft: _Draft, locale: Locale) -> None:
        rng, phrases = self._rng, self._grammar.phrases
        if rng.random() < _MISLEADING:
            other = self._noun(rng.choice(self._grammar.leaves), locale)
            draft.sentences.append(rng.choice(phrases.misleading[locale]).format(noun=other))
        if locale == "en" and rng.random() < 0.07:
            draft.title = shuffle_words(draft.title, rng)
        if rng.random() < 0.12:
            draft.title = typo(draft.title, rng)
        if locale == "en" and rng.random() < 0.08:
            draft.title = draft.title.upper()
        if locale == "ja" and rng.random() < 0.2:
            draft.title = full_width(draft.title)
        if locale == "ja" and rng.random() < 0.06:
            draft.title = half_width_katakana(draft.title)
        if rng.random() < 0.15:
            draft.title = f"{rng.choice(phrases.shop_marks[locale])} {draft.title}"

    def _description(self, draft: _Draft, locale: Locale) -> str:
        rng, phrases = self._rng, self._grammar.phrases
        if not draft.described:
            return ""
        sentences = draft.sentences
        if rng.random() < 0.3:
            rng.shuffle(sentences)
        if rng.random() < 0.35:
            count = rng.randrange(1, 3)
            sentences = sentences + rng.sample(phrases.boilerplate[locale], count)
        if rng.random() < 0.1:
            return mark_up(sentences, rng)
        return (" " if locale == "en" else "").join(sentences)

    def _noun(self, leaf: Leaf, locale: Locale) -> str:
        nouns: Sequence[str] = leaf.nouns[locale]
        return self._rng.choices(nouns, [1 / (rank + 1) for rank in range(len(nouns))])[0]

    def _model(self) -> str:
        rng = self._rng
        if rng.random() < 0.35:
            return ""
        letters = "".join(rng.choices("ABCDEFGHKLMNPRSTUVWX", k=rng.randrange(1, 4)))
        return f"{letters}{rng.choice(['-', '', ' '])}{rng.randrange(10, 9900)}"
