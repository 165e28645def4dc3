"""docs/configuration.md and the settings class say the same."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le

from worker.settings import Settings, flag, variable

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(arm for arm in get_args(annotation) if arm is not type(None))
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    low = next((m.ge for m in metadata if isinstance(m, Ge)), None)
    above = next((m.gt for m in metadata if isinstance(m, Gt)), None)
    high = next((m.le for m in metadata if isinstance(m, Le)), None)
    start = f"above {above}" if above is not None else f"from {low}" if low is not None else ""
    return f"{start} to {high}" if start and high is not None else start


def rows() -> list[str]:
    """The rows of the tables, as the settings class has them."""
    made = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`".lower()
        if isinstance(field.default, str | Path):
            default = f"`{field.default}`"
        option = flag(name)
        cells = [
            f"`{variable(name)}`",
            f"`{option}`" if option else "",
            default,
            _allowed(field.annotation, field.metadata),
            field.description or "",
        ]
        made.append("| " + " | ".join(cells) + " |")
    return made


def test_the_page_lists_every_setting_with_default_and_meaning() -> None:
    on_page = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| `SORTIMENT_", "| `KAFKA_BOOTSTRAP", "| `REDIS_URL"))
    ]

    assert on_page == rows()


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
