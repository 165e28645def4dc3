"""Another system's scored labels for a split, which make it a row in a table of attributes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.errors import SortimentError
from models.predictor import LabelScores
from models.taxonomy import Taxonomy, label_id
from training.data import LabelledProduct

__all__ = ["read_scored_labels"]


def read_scored_labels(
    path: Path, items: Sequence[LabelledProduct], taxonomy: Taxonomy
) -> LabelScores:
    """The labels that are relevant to each product's true category, best first.

    Args:
        path: JSON lines ``{product_id, attributes: [[name, value, score], ...]}``, of any order,
            packed where the name ends in ``.gz``; products beside ``items`` are passed over.

    Returns:
        CSR; rows stand in the order of ``taxonomy.label_ids()``.

    Raises:
        SortimentError: the file cannot be read, is of another form, or lacks a product.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            answers = {row["product_id"]: _scores(row["attributes"]) for row in map(_line, file)}
    except (EOFError, OSError) as error:
        raise SortimentError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SortimentError(
            f"{path}: give JSON lines of product_id and attributes [[name, value, score], ...]: "
            f"{error}"
        ) from error
    missing = [item.product.product_id for item in items if item.product.product_id not in answers]
    if missing:
        raise SortimentError(f"{path} lacks {len(missing)} products, first {missing[0]}")

    @cache
    def relevant(category: str) -> Mapping[str, int]:
        if category not in taxonomy.categories:
            return {}
        numbers = taxonomy.label_numbers(category).tolist()
        return dict(zip(taxonomy.relevant_label_ids(category), numbers, strict=True))

    indptr, rows, scores = [0], [], []
    for item in items:
        rows_of = relevant(item.category)
        given = answers[item.product.product_id]
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


def _line(line: bytes) -> Mapping[str, Any]:
    row: Mapping[str, Any] = orjson.loads(line)
    return row


def _scores(attributes: Sequence[tuple[str, str, float]]) -> Mapping[str, float]:
    """By label id; of one that is given twice the last counts."""
    return {label_id(name, value): float(score) for name, value, score in attributes}
