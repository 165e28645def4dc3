"""What a seller uploads, and the checks that make it one.

Text is normalised by ``models.text.normalise`` before a ``Product`` exists, so training and
serving see the same characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.errors import ProductError
from models.text import normalise

__all__ = [
    "MAX_BULLETS",
    "MAX_ID_CHARS",
    "MAX_IMAGES",
    "MAX_LINE_CHARS",
    "MAX_TEXT_CHARS",
    "Product",
    "parse_product",
]

# A product id becomes a Kafka key and a part of every output event: keep it a name, not a text.
MAX_ID_CHARS = 512
MAX_BULLETS = 64
# RFC 5646, 4.4.1: no registered language tag needs more.
MAX_LOCALE_CHARS = 35
MAX_IMAGES = 64
# Beyond this no encoder reads on; a description of 1 MB costs 50 times a long one to normalise.
MAX_TEXT_CHARS = 20_000
# Bullets and titles are lines, not texts: 64 bullets at the bound above would cost 0.7 s.
MAX_LINE_CHARS = 2_000


@dataclass(slots=True)
class Product:
    """One product, its text normalised. Treated as immutable (``frozen`` triples creation time).

    Attributes:
        product_id: the seller's id, 1 to 512 characters, as given.
        version: the seller's version of this product, if it has one.
        locale: BCP 47 tag in lower case ("en", "ja"), or "" where none is given.
        title: may be empty only where the description or a bullet is not.
        description: plain text, may be empty.
        bullets: plain texts, none empty.
        images: addresses as given: hostile until proven otherwise, never fetched here.
        claimed_category: the category id that the seller claims.
    """

    product_id: str
    version: str | None
    locale: str
    title: str
    description: str
    bullets: tuple[str, ...]
    images: tuple[str, ...]
    claimed_category: str | None


def parse_product(raw: object) -> Product:
    """Check a decoded JSON value and make a product of it.

    Fields: ``product_id`` (string or integer, required), ``title`` (required, may be ""),
    ``version`` (string or integer), ``locale``, ``description``, ``bullets`` (list of strings),
    ``images`` (list of strings) or ``image`` (string), ``claimed_category``. A field that is null
    counts as absent; unknown fields are ignored.

    Raises:
        ProductError: ``not_an_object``, ``missing_field``, ``wrong_type``, ``too_long``,
            ``bad_id`` or ``no_text``, naming the field.
    """
    if not isinstance(raw, dict):
        raise ProductError("not_an_object", f"a product is a JSON object, got {type(raw).__name__}")
    get = raw.get
    product_id = get("product_id")
    if type(product_id) is not str:
        product_id = _id_from(product_id)
    if not 0 < len(product_id) <= MAX_ID_CHARS:
        raise ProductError(
            "bad_id",
            f"product_id has {len(product_id)} characters, allowed are 1 to {MAX_ID_CHARS}",
        )
    title = get("title")
    if type(title) is not str:
        if title is None:
            raise ProductError("missing_field", "title is missing; send it, empty if there is none")
        raise _wrong_type("title", "a string", title)
    title = normalise(title, MAX_LINE_CHARS)
    description = get("description")
    if description:
        if type(description) is not str:
            raise _wrong_type("description", "a string", description)
        description = normalise(description, MAX_TEXT_CHARS)
    else:
        description = _empty("description", description)
    bullets = get("bullets")
    bullets = _texts("bullets", bullets, MAX_BULLETS) if bullets else _no_list("bullets", bullets)
    if not (title or description or bullets):
        raise ProductError(
            "no_text", "title, description and bullets are all empty: nothing to categorize by"
        )
    # One test for what most products lack is cheaper than a call that finds nothing to check.
    locale = get("locale")
    version = get("version")
    claimed = get("claimed_category")
    return Product(
        product_id,
        None if version is None else _version(version),
        locale.lower()
        if type(locale) is str and len(locale) <= MAX_LOCALE_CHARS
        else _locale(locale),
        title,
        description,
        bullets,
        _images(get("images"), get("image")),
        None if claimed is None else _claimed(claimed),
    )


def _id_from(value: Any) -> str:
    if value is None:
        raise ProductError("missing_field", "product_id is missing")
    if type(value) is int:
        return str(value)
    raise _wrong_type("product_id", "a string or an integer", value)


def _version(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise _wrong_type("version", "a string or an integer", value)
    return _bounded("version", value)


def _locale(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        raise _wrong_type("locale", "a string", value)
    raise ProductError(
        "too_long", f"locale has {len(value)} characters, allowed are {MAX_LOCALE_CHARS}"
    )


def _claimed(value: Any) -> str | None:
    if value == "":
        return None
    if type(value) is not str:
        raise _wrong_type("claimed_category", "a string", value)
    return _bounded("claimed_category", value)


def _images(images: Any, image: Any) -> tuple[str, ...]:
    if images:
        if type(images) is not list or not all(type(image) is str for image in images):
            raise _wrong_type("images", "a list of strings", images)
        if len(images) > MAX_IMAGES:
            raise ProductError("too_long", f"images has {len(images)} entries of {MAX_IMAGES}")
        return tuple(images)
    if images is not None and type(images) is not list:
        raise _wrong_type("images", "a list of strings", images)
    if image is None:
        return ()
    if type(image) is not str:
        raise _wrong_type("image", "a string", image)
    return (image,)


def _texts(field: str, value: Any, most: int) -> tuple[str, ...]:
    if type(value) is not list:
        raise _wrong_type(field, "a list of strings", value)
    if len(value) > most:
        raise ProductError("too_long", f"{field} has {len(value)} entries, allowed are {most}")
    texts = []
    for index, text in enumerate(value):
        if type(text) is not str:
            raise _wrong_type(f"{field}[{index}]", "a string", text)
        clean = normalise(text, MAX_LINE_CHARS)
        if clean:
            texts.append(clean)
    return tuple(texts)


def _empty(field: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    raise _wrong_type(field, "a string", value)


def _no_list(field: str, value: Any) -> tuple[str, ...]:
    if value is None or type(value) is list:
        return ()
    raise _wrong_type(field, "a list of strings", value)


def _bounded(field: str, value: str) -> str:
    if len(value) > MAX_ID_CHARS:
        raise ProductError(
            "too_long", f"{field} has {len(value)} characters, allowed are {MAX_ID_CHARS}"
        )
    return value


def _wrong_type(field: str, wanted: str, value: object) -> ProductError:
    return ProductError("wrong_type", f"{field} must be {wanted}, got {type(value).__name__}")
