"""A table of attribute rows: what its file says, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic.dataclasses
from pydantic import Field, TypeAdapter

from training.recipe import SETTINGS
from training.table_rows import read_table

__all__ = ["AttributeComparison", "AttributeTable", "Group", "load_attribute_table"]

Figures = Annotated[tuple[float, ...], Field(min_length=3, max_length=5)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AttributeRow:
    """A row: ``settings`` on top of the table's recipe, and the paper's figures in per cent.

    Attributes:
        elsewhere: the row is not trained here: ``compare`` is given its scores, or it shows the
            paper's figures alone.
        paper: ``micro`` and ``macro`` (precision, recall, F1) and ``at`` (P@1, 3, 5).
    """

    key: str
    name: str
    settings: tuple[str, ...] = ()
    elsewhere: bool = False
    paper: dict[str, Figures] = field(default_factory=dict)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Group:
    """Labels by training count; ``paper``: labels, micro F1, gain, macro F1, gain."""

    name: str
    least: int
    paper: Figures


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AttributeTable:
    """A paper's table: which rows, of which recipe; gains are of ``best`` over ``baseline``."""

    kind: Literal["attributes"]
    about: str
    recipe: str
    baseline: str
    best: str
    rows: tuple[AttributeRow, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeComparison:
    """What was measured: figures by row key, and what they were measured on.

    Attributes:
        products: of the split. trained: training products of every row.
    """

    table: AttributeTable
    name: str
    data: str
    split: str
    products: int
    trained: int
    measures: Mapping[str, Mapping[str, float]]
    recipe: str
    command: str
    hardware: str
    notes: str


def load_attribute_table(name: str) -> AttributeTable:
    """A table that comes with the package.

    Raises:
        SortimentError: there is none of this name, or it is of another kind.
    """
    return TypeAdapter(AttributeTable).validate_python(read_table(name, "attributes"))
