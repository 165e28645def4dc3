"""A small taxonomy, products for it, and events that are none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import orjson

from models.taxonomy import Taxonomy

# Key and value of an input event.
Event: TypeAlias = tuple[bytes | None, bytes | None]

_WORDS = [
    "red", "blue", "green", "gold", "small", "large", "cotton", "leather", "wood", "steel",
    "dress", "shoe", "hat", "lamp", "chair", "gift", "soft", "bright", "old", "new", "warm",
]  # fmt: skip

NUM_SELLERS = 97  # prime: the keys fall on all partitions, each many times


def small_taxonomy() -> Taxonomy:
    """Two departments, six leaves, four attributes; one leaf has no relevant label."""
    raw = {
        "name": "small",
        "version": "2025-01",
        "locale": "en",
        "categories": [
            {"id": "apparel", "name": "Apparel", "parent": None},
            {"id": "dresses", "name": "Dresses", "parent": "apparel", "names": {"ja": "ドレス"}},
            {"id": "shoes", "name": "Shoes", "parent": "apparel", "names": {"ja": "靴"}},
            {"id": "hats", "name": "Hats", "parent": "apparel"},
            {"id": "home", "name": "Home", "parent": None},
            {"id": "lamps", "name": "Lamps", "parent": "home"},
            {"id": "chairs", "name": "Chairs", "parent": "home"},
            {"id": "gifts", "name": "Gifts", "parent": "home"},
        ],
        "attributes": [
            {"name": "Color", "values": ["red", "blue", "green", "gold"]},
            {"name": "Size", "values": ["s", "m", "l"]},
            {"name": "Material", "values": ["cotton", "leather", "wood", "steel"]},
            {"name": "Bulb", "values": ["E14", "E27"]},
        ],
        "relevant": {
            "dresses": {"Color": ["red", "blue", "green"], "Size": ["s", "m", "l"]},
            "shoes": {"Color": ["red", "blue"], "Material": ["leather"]},
            "hats": {"Size": ["s", "m"], "Material": ["cotton"]},
            "lamps": {"Bulb": ["E14", "E27"], "Color": ["gold"]},
            "chairs": {"Material": ["wood", "steel"]},
        },
    }
    return Taxonomy.from_json(orjson.dumps(raw), source="small.json")


def many_shelves(num: int) -> Taxonomy:
    """Many inner categories: only leaves are fetched before the first product comes."""
    categories: list[dict[str, Any]] = [{"id": "shop", "name": "Shop", "parent": None}]
    for number in range(num):
        shelf = f"shelf{number}"
        categories.append({"id": shelf, "name": shelf, "parent": "shop"})
        categories.append({"id": f"box{number}", "name": f"Box {number}", "parent": shelf})
    values = [f"v{number}" for number in range(50)]
    relevant = {
        f"{kind}{number}": {"A": values[number % 40 : number % 40 + 1 + number % 9]}
        for kind in ("shelf", "box")
        for number in range(num)
    }
    raw = {
        "name": "shelves",
        "version": "1",
        "categories": categories,
        "attributes": [{"name": "A", "values": values}],
        "relevant": relevant,
    }
    return Taxonomy.from_json(orjson.dumps(raw), source="shelves.json")


def product(number: int, **fields: Any) -> bytes:
    """The value of product ``p<number>``."""
    raw: dict[str, Any] = {
        "product_id": f"p{number}",
        "version": str(number % 7),
        "locale": "ja" if number % 3 == 0 else "en",
        "title": f"Red dress no. {number}" if number % 3 else f"赤いドレス {number}",
        "description": f"Cotton, <b>size</b> m &amp; l, lot {number}",
    }
    return orjson.dumps(raw | fields)


def varied_product(number: int, seed: int = 3) -> bytes:
    """A product of random words: no two are alike to a model that reads them."""
    words = random.Random(f"{seed}-{number}").choices(_WORDS, k=3 + number % 12)
    return product(number, title=" ".join(words[:3]), description=" ".join(words[3:]))


def seller_key(number: int) -> bytes:
    """The key of event ``number``: sellers come again and again."""
    return b"seller-%d" % (number % NUM_SELLERS)


def products(num: int, start: int = 0) -> Iterator[Event]:
    """``num`` good events from product ``start`` on."""
    for number in range(start, start + num):
        yield seller_key(number), product(number)


def hostile_events() -> list[tuple[Event, str | None]]:
    """Events of the worst kinds, each with its dead letter's reason; None: it gets a result."""
    good = product(1)
    values: list[tuple[bytes | None, str | None]] = [
        (None, "tombstone"),
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"not json at all", "invalid_json"),
        (b'{"product_id": "x", "title": NaN}', "invalid_json"),
        (b'{"product_id": "x", "title": "lone \\ud800 surrogate"}', "invalid_json"),
        (b"\xff\xfe\x00", "invalid_utf8"),
        (good.replace(b"Red", b"R\xc3\x28d"), "invalid_utf8"),
        (b"[1, 2]", "not_an_object"),
        (b'"a string"', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"title": "no id"}', "missing_field"),
        (b'{"product_id": "x"}', "missing_field"),
        (b'{"product_id": true, "title": "t"}', "wrong_type"),
        (b'{"product_id": "x", "title": 7}', "wrong_type"),
        (product(2, bullets="not a list"), "wrong_type"),
        (product(2, bullets=[["nested"]]), "wrong_type"),
        (product(2, locale={"a": 1}), "wrong_type"),
        (product(2, claimed_category=["dresses"]), "wrong_type"),
        (product(2, product_id=""), "bad_id"),
        (product(2, product_id="x" * 513), "bad_id"),
        (product(2, locale="x" * 36), "too_long"),
        (product(2, bullets=["b"] * 65), "too_long"),
        (product(2, title="", description=""), "no_text"),
        (product(2, title="\u200b <br> \x00", description=" "), "no_text"),
        # Odd, and yet products.
        (product(3, title="", description="only a description"), None),
        (product(3, product_id=12345), None),
        (product(3, title="a\x00b\u202ec", description="x" * 300_000), None),
        (product(3, title="<" * 5_000), None),
        (b'{"product_id": "twice", "title": "first", "title": "second"}', None),
        (product(3, unknown={"deep": [[[[[[[["er"]]]]]]]]}), None),
        (product(3, claimed_category="dresses"), None),
        (product(3, claimed_category="no such category"), None),
        (product(3, locale=None, version=None, images=[], bullets=None), None),
    ]
    # Deeper than the decoder goes.
    deep = b'{"product_id": "x", "title": "t", "u": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    values.append((deep, "invalid_json"))
    events: list[tuple[Event, str | None]] = [
        ((b"hostile-%d" % number, value), reason) for number, (value, reason) in enumerate(values)
    ]
    # Null keys: a result gets the product's id, a dead letter stays without.
    events += [((None, product(number)), None) for number in range(100, 110)]
    events += [((None, b"{"), "invalid_json")]
    events += [((b"k" * 10_000, product(6)), "key_too_long")]
    events += [((b"", product(4)), None), ((b"\xff\x00" * 200, product(5)), None)]
    return events
