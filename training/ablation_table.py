"""A table of a system's parts: what its file says, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pydantic.dataclasses
from pydantic import TypeAdapter

from training.paired_bootstrap import Interval
from training.recipe import SETTINGS
from training.table_rows import read_table

__all__ = ["Ablation", "AblationTable", "load_ablation_table"]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AblationRow:
    """``settings`` on top of the table's recipe."""

    key: str
    name: str
    settings: tuple[str, ...] = ()


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AblationTable:
    """Rows of a recipe; all differences are to ``whole``.

    Attributes:
        elsewhere: figures of a system that is not trained here, by data set, in ``NAMES``' order.
        wanted: the least that is wanted of the whole, likewise.
    """

    kind: Literal["parts"]
    about: str
    recipe: str
    whole: str
    rows: tuple[AblationRow, ...]
    elsewhere_name: str = ""
    elsewhere: dict[str, tuple[float, ...]] = field(default_factory=dict)
    wanted: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What was measured, by row key; intervals are of the whole's own figures and of differences.

    Attributes:
        by_source: products and category accuracy of the whole, by the category ids' first part.
        speeds: products a second of one evaluation, the machine's other work beside it.
    """

    table: AblationTable
    name: str
    data: str
    split: str
    products: int
    recipe: str
    command: str
    hardware: str
    notes: str
    measures: Mapping[str, Mapping[str, float]]
    own: Mapping[str, Interval]
    differences: Mapping[str, Mapping[str, Interval]]
    by_source: Mapping[str, tuple[int, float]]
    speeds: Mapping[str, float]
    against: str | None


def load_ablation_table(name: str) -> AblationTable:
    """A table that comes with the package.

    Raises:
        SortimentError: there is none of this name, or it is of another kind.
    """
    return TypeAdapter(AblationTable).validate_python(read_table(name, "parts"))
