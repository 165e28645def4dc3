"""YAML read from parser events: text, lists and mappings only, each mapping with its line.

PyYAML's constructors cost most of the time of a load and guess types (``No`` becomes False).
Taxonomy files hold ids and names, so every scalar stays text here, and what hostile YAML is made
of (anchors, aliases, tags, deep nesting) is refused. libyaml's parser does the reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, Union

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from models.taxonomies.draft import Draft, Place

__all__ = ["BadYaml", "YamlList", "YamlMap", "YamlValue", "parse_yaml", "read_yaml"]

# Shopify's files go to depth 4.
_MAX_DEPTH = 32
_NULLS = ("", "~", "null")

YamlValue: TypeAlias = Union[str, "YamlList", "YamlMap", None]


class YamlList(list[YamlValue]):
    """A sequence."""

    __slots__ = ()


class YamlMap(dict[str, YamlValue]):
    """A mapping and the line that it starts in, counted from 1."""

    __slots__ = ("line",)

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class BadYaml(Exception):
    """What is wrong and in which line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def read_yaml(draft: Draft, path: Path, *, defines_ids: bool = True) -> YamlValue:
    """The one document of a file; None where it is empty or broken, which the draft is told.

    Where the file defines ids, a broken one makes the draft incomplete: references stay unjudged.
    """
    broken = draft.unreadable if defines_ids else draft.problem
    twice: list[tuple[int, str]] = []
    try:
        document = parse_yaml(path.read_bytes(), twice)
    except OSError as error:
        broken(str(path), f"cannot be read: {error.strerror}")
        return None
    except BadYaml as error:
        broken(Place(f"{path}:", error.line), error.text)
        return None
    if document is None:
        broken(str(path), "holds nothing")
    for line, key in twice:
        draft.problem(Place(f"{path}:", line), f"the key {key!r} occurs twice in one mapping")
    return document


def parse_yaml(data: bytes, twice: list[tuple[int, str]]) -> YamlValue:
    """The one document of ``data``; None where it is empty.

    Args:
        data: UTF-8.
        twice: gets line and key of each key that occurs twice in a mapping; the first one counts.

    Raises:
        BadYaml: a syntax error, or something that is refused.
    """
    try:
        return _build(data, twice)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadYaml(line, f"not YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = data[: error.position].count(b"\n") + 1
        raise BadYaml(line, f"not YAML: {error.reason} at byte {error.position}") from error


def _build(data: bytes, twice: list[tuple[int, str]]) -> YamlValue:
    top = YamlList()
    stack: list[YamlList | YamlMap] = []
    holder: YamlList | YamlMap = top
    key: str | None = None  # of the mapping that is open, where its value comes next
    for event in yaml.parse(data, yaml.CSafeLoader):
        made: YamlValue
        if isinstance(event, ScalarEvent):
            _refuse_marks(event)
            text: str = event.value
            if type(holder) is YamlMap and key is None:
                key = text
                if key in holder:
                    twice.append((_line(event), key))
                continue
            made = None if text in _NULLS and not event.style else text
        elif isinstance(event, CollectionEndEvent):
            holder = stack.pop()
            continue
        elif isinstance(event, CollectionStartEvent):
            _refuse_marks(event)
            if type(holder) is YamlMap and key is None:
                raise BadYaml(_line(event), "a key must be text")
            if len(stack) >= _MAX_DEPTH:
                raise BadYaml(_line(event), f"nested deeper than {_MAX_DEPTH}")
            is_map = isinstance(event, MappingStartEvent)
            made = YamlMap(_line(event)) if is_map else YamlList()
        elif isinstance(event, AliasEvent):
            raise BadYaml(_line(event), "aliases are not allowed")
        elif isinstance(event, DocumentStartEvent) and top:
            raise BadYaml(_line(event), "a second document starts here")
        else:
            continue
        if isinstance(holder, YamlList):
            holder.append(made)
        elif key is not None:
            holder.setdefault(key, made)
            key = None
        if isinstance(made, YamlMap | YamlList):
            stack.append(holder)
            holder = made
    return top[0] if top else None


def _refuse_marks(event: ScalarEvent | CollectionStartEvent) -> None:
    if event.anchor is not None or event.tag is not None:
        raise BadYaml(_line(event), "tags and anchors are not allowed")


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
