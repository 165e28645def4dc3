"""Another system's answers for a split, which make it a row beside ours: JSON lines, maybe packed.

Lines stand in any order, one for each product at least; products beside the split's are passed
over. Labels that are irrelevant to the product's true category are dropped, as for every row.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from models.errors import SortimentError
from models.predictor import LabelScores
from models.taxonomy import Taxonomy, label_id
from training.data import LabelledProduct

__all__ = ["read_answers", "read_scored_labels"]

Answer = TypeVar("Answer")


def read_scored_labels(
    path: Path, items: Sequence[LabelledProduct], taxonomy: Taxonomy
) -> LabelScores:
    """The labels that are relevant to each product's true category, best first.

    Args:
        path: lines ``{product_id, attributes: [[name, value, score], ...]}``.

    Returns:
        CSR; rows stand in the order of ``taxonomy.label_ids()``.

    Raises:
        SortimentError: the file cannot be read, is of another form, or lacks a product.
    """
    form = "product_id and attributes [[name, value, score], ...]"
    answers = _read(path, items, lambda row: _scores(row["attributes"]), form)
    relevant = _relevant(taxonomy)
    indptr, rows, scores = [0], [], []
    for item, given in zip(items, answers, strict=True):
        rows_of = relevant(item.category)
        kept = [(score, rows_of[label]) for label, score in given.items() if label in rows_of]
        kept.sort(key=lambda pair: (-pair[0], pair[1]))
        rows += [row for _, row in kept]
        scores += [score for score, _ in kept]
        indptr.append(len(rows))
    return LabelScores(
        np.array(indptr, dtype=np.int64),
        np.array(rows, dtype=np.int64),
        np.array(scores, dtype=np.float32),
    )


def read_answers(
    path: Path, items: Sequence[LabelledProduct], taxonomy: Taxonomy
) -> tuple[list[str], list[list[str]] | None]:
    """The category of each product, and its labels that are relevant to the true one, each once.

    Args:
        path: lines ``{product_id, category, attributes: [[name, value], ...]}``.

    Returns:
        Categories; label ids, None where the taxonomy has no labels (no line needs any then).

    Raises:
        SortimentError: the file cannot be read, is of another form, or lacks a product.
    """
    has_labels = bool(taxonomy.label_ids())
    form = "product_id and category" + (
        " and attributes [[name, value], ...]" if has_labels else ""
    )

    def parse(row: Mapping[str, Any]) -> tuple[str, list[str]]:
        if type(row["category"]) is not str:
            raise TypeError("a category is a category's id")
        pairs = row["attributes"] if has_labels else []
        return row["category"], list(dict.fromkeys(label_id(name, value) for name, value in pairs))

    answers = _read(path, items, parse, form)
    categories = [category for category, _ in answers]
    if not has_labels:
        return categories, None
    relevant = _relevant(taxonomy)
    labels = [
        [label for label in given if label in relevant(item.category)]
        for item, (_, given) in zip(items, answers, strict=True)
    ]
    return categories, labels


def _read(
    path: Path,
    items: Sequence[LabelledProduct],
    parse: Callable[[Mapping[str, Any]], Answer],
    form: str,
) -> list[Answer]:
    """The answer to each of ``items``, in their order."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            answers = {row["product_id"]: parse(row) for row in map(orjson.loads, file)}
    except (EOFError, OSError) as error:
        raise SortimentError(f"{path} cannot be read: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SortimentError(f"{path}: give JSON lines of {form}: {error}") from error
    missing = [item.product.product_id for item in items if item.product.product_id not in answers]
    if missing:
        raise SortimentError(f"{path} lacks {len(missing)} products, first {missing[0]}")
    return [answers[item.product.product_id] for item in items]


def _relevant(taxonomy: Taxonomy) -> Callable[[str], Mapping[str, int]]:
    """Numbers of a category's labels by their ids."""

    @cache
    def relevant(category: str) -> Mapping[str, int]:
        if category not in taxonomy.categories:
            return {}
        numbers = taxonomy.label_numbers(category).tolist()
        return dict(zip(taxonomy.relevant_label_ids(category), numbers, strict=True))

    return relevant


def _scores(attributes: Sequence[tuple[str, str, float]]) -> Mapping[str, float]:
    """By label id; of one that is given twice the last counts."""
    return {label_id(name, value): float(score) for name, value, score in attributes}
