"""A page of tables and plots, as Markdown and as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from markdown_it import MarkdownIt

__all__ = ["Page", "Section"]

_VERSIONS = ("torch", "numpy", "scikit-learn")
_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; } th, td { padding: 0.2em 0.7em; border-bottom: 1px solid #ddd; }
td:not(:first-child), th:not(:first-child) { text-align: right; }
pre { background: #f4f4f4; padding: 0.7em; overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A table under a heading: a name and a cell for each further column a row."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A title, what was run on what, tables and plots (PNG files beside the page).

    Attributes:
        notes: Markdown below them: what people say of the figures.
    """

    title: str
    about: Sequence[str]
    command: str
    sections: Sequence[Section]
    plots: Sequence[Path]
    hardware: str = ""
    notes: str = ""

    def write(self, folder: Path, stem: str, figures: Mapping[str, Any]) -> None:
        """``stem`` with ``.md``, ``.html`` and ``.json``: figures, and what they were made with."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.md").write_text(self.markdown(folder), encoding="utf-8")
        (folder / f"{stem}.html").write_text(self.html(), encoding="utf-8")
        said = {"hardware": self.hardware, "notes": self.notes}
        document = {**figures, **said, **_made()}
        option = orjson.OPT_INDENT_2
        (folder / f"{stem}.json").write_bytes(orjson.dumps(document, option=option))

    def markdown(self, folder: Path) -> str:
        """The page for a file in ``folder``."""
        lines = [f"# {self.title}", "", *self.about, "", "```", self.command, "```", ""]
        lines += [self._made_line(), ""]
        for section in self.sections:
            lines += [f"## {section.heading}", ""]
            if section.note:
                lines += [section.note, ""]
            lines += [
                _line(section.columns),
                _line(["---", *["---:"] * (len(section.columns) - 1)]),
            ]
            lines += [*map(_line, section.rows), ""]
        for plot in self.plots:
            lines += [f"![{plot.stem}]({plot.relative_to(folder).as_posix()})", ""]
        if self.notes:
            lines += [self.notes.strip(), ""]
        return "\n".join(lines)

    def html(self) -> str:
        """The page with its plots inside."""
        parts = [f"<h1>{html.escape(self.title)}</h1>"]
        parts += [f"<p>{html.escape(line)}</p>" for line in self.about if line]
        parts.append(f"<pre>{html.escape(self.command)}</pre>")
        parts.append(f"<p>{html.escape(self._made_line())}</p>")
        for section in self.sections:
            parts.append(f"<h2>{html.escape(section.heading)}</h2>")
            if section.note:
                parts.append(f"<p>{html.escape(section.note)}</p>")
            head = "".join(f"<th>{html.escape(each)}</th>" for each in section.columns)
            rows = "".join(
                f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n"
                for row in section.rows
            )
            parts.append(f"<table>\n<tr>{head}</tr>\n{rows}</table>")
        for plot in self.plots:
            data = base64.b64encode(plot.read_bytes()).decode()
            parts.append(f'<p><img alt="{plot.stem}" src="data:image/png;base64,{data}"></p>')
        if self.notes:
            # `js-default` shows HTML in the notes as text, and drops links that would run scripts.
            parts.append(MarkdownIt("js-default").render(self.notes))
        body = "\n".join(parts)
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
        )

    def _made_line(self) -> str:
        made = _made()
        versions = (f"{name} {each}" for name, each in made["versions"].items())
        return ", ".join([*([self.hardware] if self.hardware else []), made["date"], *versions])


def _made() -> dict[str, Any]:
    versions = {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}
    return {"date": datetime.now(UTC).date().isoformat(), "versions": versions}


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
