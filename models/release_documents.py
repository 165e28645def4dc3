"""A release's documents beside its manifest and weights: their names, and what is read in them.

Each is refused where it is not what the manifest and the taxonomy say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.errors import ProductError, ReleaseError, TaxonomyError
from models.labels import LabelSpace
from models.manifest import MANIFEST, Manifest
from models.product import Product, parse_product
from models.taxonomies.native import read_native
from models.taxonomy import Taxonomy

__all__ = [
    "CATEGORIES",
    "EXAMPLES",
    "LABELS",
    "OWN_FILES",
    "TAXONOMY",
    "THRESHOLDS",
    "WEIGHTS",
    "Example",
    "Thresholds",
    "dump_examples",
    "dump_thresholds",
    "read_examples",
    "read_space",
    "read_taxonomy",
    "read_thresholds",
]

WEIGHTS = "weights.safetensors"
TAXONOMY = "taxonomy.json.gz"
CATEGORIES = "categories.json"
LABELS = "labels.json"
THRESHOLDS = "thresholds.json"
EXAMPLES = "examples.json"
# All others in a release are its architecture's.
OWN_FILES = frozenset({WEIGHTS, TAXONOMY, CATEGORIES, LABELS, THRESHOLDS, EXAMPLES})

Thresholds = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Example:
    """A product and what the model answered to it when the release was made.

    Attributes:
        mask_category: whose relevant labels were scored; None where no labels were.
        categories: (category id, score), best first; empty without a category model.
        labels: (label id, score) at or above their thresholds; empty without an attribute model.
        tolerance: by how much a score may differ on another device or in another precision.
    """

    product: Product
    mask_category: str | None
    categories: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...]
    tolerance: float


def dump_thresholds(categories: Thresholds | None, labels: Thresholds | None, where: str) -> bytes:
    """``thresholds.json``, which ``read_thresholds`` reads.

    Raises:
        ReleaseError: a threshold is not a number.
    """
    for thresholds in (categories, labels):
        # orjson writes NaN as null, so it must be caught before.
        if thresholds is not None and not np.isfinite(thresholds).all():
            raise ReleaseError(f"{where}: a threshold is not a number")
    document = {
        key: None if thresholds is None else thresholds.astype(np.float32)
        for key, thresholds in (("categories", categories), ("labels", labels))
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def dump_examples(examples: Sequence[Example]) -> bytes:
    """``examples.json``, which ``read_examples`` reads."""
    return orjson.dumps([asdict(example) for example in examples], option=orjson.OPT_INDENT_2)


def _json(data: bytes, kind: type, where: str) -> Any:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ReleaseError(f"{where} is not JSON: {error}; make the release anew") from error
    if type(document) is not kind:
        raise ReleaseError(f"{where} must hold a {kind.__name__}, got {type(document).__name__}")
    return document


def read_taxonomy(data: bytes, manifest: Manifest, where: str) -> Taxonomy:
    """``taxonomy.json.gz``, if it is the one that the manifest names.

    Raises:
        ReleaseError: it is not, or is no taxonomy.
    """
    try:
        taxonomy = read_native(BytesIO(data), f"{where}, {TAXONOMY}", packed=True)
    except TaxonomyError as error:
        raise ReleaseError(f"{where}: {error}") from error
    if (taxonomy.name, taxonomy.version) != (manifest.taxonomy_name, manifest.taxonomy_version):
        raise ReleaseError(
            f"{where}: {TAXONOMY} is {taxonomy.name} version {taxonomy.version}, {MANIFEST} says "
            f"{manifest.taxonomy_name} version {manifest.taxonomy_version}; make the release anew"
        )
    return taxonomy


def read_space(
    data: bytes, expected: tuple[int, str], known: Sequence[str], where: str
) -> LabelSpace:
    """``categories.json`` or ``labels.json``.

    Args:
        expected: number and hash of the ids; known: the taxonomy's ids of this kind.

    Raises:
        ReleaseError: other ids, or some that are not known.
    """
    ids = _json(data, list, where)
    if not all(type(each) is str for each in ids):
        raise ReleaseError(f"{where} must hold strings")
    try:
        space = LabelSpace(tuple(ids))
    except ValueError as error:
        raise ReleaseError(f"{where}: {error}") from error
    if not ids or (len(space), space.hash) != expected:
        raise ReleaseError(
            f"{where}: {len(space)} ids of hash {space.hash}, {MANIFEST} says {expected[0]} of "
            f"{expected[1]}; make the release anew"
        )
    unknown = sorted(set(ids).difference(known))
    if unknown:
        raise ReleaseError(
            f"{where}: {len(unknown)} ids that the taxonomy lacks, first {unknown[0]!r}"
        )
    return space


def read_thresholds(
    data: bytes, categories: LabelSpace | None, labels: LabelSpace | None, where: str
) -> tuple[Thresholds | None, Thresholds | None]:
    """``thresholds.json``: of categories and of labels, None where there is no such label space.

    Raises:
        ReleaseError: not a number from 0 to 1 for each row of what there is.
    """
    document = _json(data, dict, where)
    return (
        _thresholds(document.get("categories"), categories, where),
        _thresholds(document.get("labels"), labels, where),
    )


def _thresholds(values: Any, space: LabelSpace | None, where: str) -> Thresholds | None:
    if (values is None) != (space is None):
        raise ReleaseError(f"{where}: thresholds and label spaces do not match")
    if values is None or space is None:
        return None
    if type(values) is not list or len(values) != len(space):
        raise ReleaseError(f"{where}: {len(space)} thresholds are needed, one for each row")
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise ReleaseError(f"{where}: a threshold is a number from 0 to 1")
    return np.array(values, dtype=np.float32)


def read_examples(
    data: bytes,
    taxonomy: Taxonomy,
    categories: LabelSpace | None,
    labels: LabelSpace | None,
    where: str,
) -> tuple[Example, ...]:
    """``examples.json``; at least one.

    Raises:
        ReleaseError: none, one that is no example, or an id that the release has not.
    """
    examples = []
    for number, raw in enumerate(_json(data, list, where)):
        try:
            mask_category = raw["mask_category"]
            example = Example(
                parse_product(raw["product"]),
                mask_category,
                _scored(raw["categories"], categories),
                _scored(raw["labels"], labels),
                float(raw["tolerance"]),
            )
            if mask_category is not None:
                taxonomy.categories[mask_category]
            if not 0 < example.tolerance < 1:
                raise ValueError(f"tolerance {example.tolerance}")
        except (KeyError, TypeError, ValueError, ProductError) as error:
            raise ReleaseError(
                f"{where}, example {number} is not one: {error!r}; make the release anew"
            ) from error
        examples.append(example)
    if not examples:
        raise ReleaseError(f"{where}: no examples, so nothing to check the model by")
    return tuple(examples)


def _scored(raw: Any, space: LabelSpace | None) -> tuple[tuple[str, float], ...]:
    scored = tuple((identifier, float(score)) for identifier, score in raw)
    for identifier, score in scored:
        if space is None or identifier not in space.row_of or not 0 <= score <= 1:
            raise ValueError(f"{identifier!r} with score {score}")
    return scored
