"""Recipes from YAML files and ``key=value`` settings, to a checked ``Recipe`` or all that is wrong.

A recipe may stand on another one (``base: NAME``) and say only what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from models.errors import SortimentError
from training.recipe import Recipe

__all__ = ["RecipeError", "SafeLoader", "load_recipe", "packaged_recipes"]

_FOLDER = Path(__file__).parent / "recipes"
_GIVEN = "command line"
_SUFFIX = ".yaml"

Tree = dict[str, Any]
# Where each setting came from, by its path of keys.
Origins = dict[tuple[str, ...], str]


class RecipeError(SortimentError):
    """A recipe that cannot be run: every reason, each naming file and key."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the recipe cannot be run:\n" + "\n".join(f"  - {p}" for p in problems))


class SafeLoader(yaml.SafeLoader):
    """YAML's safe loader, without dates (a version may look like one) and without keys twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


SafeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def packaged_recipes() -> dict[str, str]:
    """Name and line about each recipe that comes with the package, by name."""
    found = {}
    for name in _packaged_names():
        tree, _ = _read(name, seen=())
        found[name] = str(tree.get("about", ""))
    return found


def load_recipe(recipe: str, settings: Sequence[str] = ()) -> Recipe:
    """A recipe with settings of one's own.

    Args:
        recipe: the name of a packaged recipe, or the path of a YAML file.
        settings: ``key=value`` or ``key.sub=value``; values as YAML has them.

    Raises:
        RecipeError: with every problem.
    """
    tree, origins = _read(recipe, seen=())
    problems = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            problems.append(f"{_GIVEN}: {setting!r} is not key=value")
            continue
        try:
            value = yaml.load(text, SafeLoader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            problems.append(f"{_GIVEN}: {key}: {text!r} is not YAML: {_one_line(error)}")
            continue
        _merge(tree, origins, _nested(path, value), _GIVEN)
    try:
        made = TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        problems += [_told(one, recipe, origins) for one in error.errors(include_url=False)]
        raise RecipeError(problems) from error
    if problems:
        raise RecipeError(problems)
    return made


def _packaged_names() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))


def _read(recipe: str, seen: tuple[str, ...]) -> tuple[Tree, Origins]:
    """The tree of a recipe and its bases, the nearest one's settings on top."""
    if recipe in seen:
        raise RecipeError([f"{recipe}: stands on itself, by way of {' and '.join(seen)}"])
    text = _text(recipe, seen)
    try:
        raw = yaml.load(text, SafeLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError([f"{recipe}: not YAML: {_one_line(error)}"]) from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise RecipeError([f"{recipe}: a recipe is a mapping of names, got {type(raw).__name__}"])
    tree: Tree = {}
    origins: Origins = {}
    base = raw.pop("base", None)
    if base is not None:
        tree, origins = _read(str(base), (*seen, recipe))
    _merge(tree, origins, raw, recipe)
    return tree, origins


def _text(recipe: str, seen: tuple[str, ...]) -> str:
    names = _packaged_names()
    if recipe in names:
        return (_FOLDER / f"{recipe}{_SUFFIX}").read_text("utf-8")
    path = Path(recipe)
    if not path.is_file() and seen:
        # A base's path is as seen from the file that names it.
        path = Path(seen[-1]).parent / recipe
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(recipe, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RecipeError(
            [f"{recipe} is no recipe of the package ({', '.join(names)}) nor a YAML file{hint}"]
        ) from error


def _nested(path: tuple[str, ...], value: Any) -> Tree:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def _merge(tree: Tree, origins: Origins, over: Mapping[str, Any], origin: str) -> None:
    """Put ``over`` on top of ``tree``: mappings key by key, everything else whole."""

    def put(into: Tree, values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            here = (*path, key)
            origins[here] = origin
            if isinstance(value, dict):
                under = into.get(key)
                into[key] = under = dict(under) if isinstance(under, dict) else {}
                put(under, value, here)
            else:
                into[key] = value

    put(tree, over, ())


def _told(error: Any, recipe: str, origins: Origins) -> str:
    """One line: file, key, what is wrong, what to do."""
    # The kind of a system stands in the path behind "system"; it is no key.
    path = tuple(str(part) for part in error["loc"])
    kind = path[1] if path[:1] == ("system",) and len(path) > 1 else None
    if kind is not None and kind in _systems():
        path = (path[0], *path[2:])
    key = ".".join(path)
    origin = next(
        (origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in origins), recipe
    )
    if error["type"] == "unexpected_keyword_argument":
        known = _keys_beside(path, kind)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{origin}: {key} is unknown; {hint}"
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{origin}: {key} is missing; give {key}=..."
    if error["type"] == "union_tag_not_found":
        return f"{origin}: {key}.kind is missing; known are {', '.join(_systems())}"
    if error["type"] == "union_tag_invalid":
        known = list(_systems())
        return f"{origin}: {key}.kind: {error['ctx']['tag']!r} is none of {', '.join(known)}"
    if error["type"] == "value_error":
        # Settings that do not go together: what is wrong with them is said by themselves.
        return f"{origin}: {key}: {error['ctx']['error']}"
    shown = repr(error["input"])
    return f"{origin}: {key}: {error['msg']}, got {shown[:80]}"


def _systems() -> dict[str, type]:
    """Settings of each system by its kind."""
    union = get_args(get_type_hints(Recipe)["system"])
    return {get_args(get_type_hints(each)["kind"])[0]: each for each in union}


def _keys_beside(path: tuple[str, ...], kind: str | None) -> list[str]:
    """Keys that the mapping has in which the last key of ``path`` stands."""
    at: Any = Recipe
    for part in path[:-1]:
        at = _systems()[kind] if part == "system" and kind else get_type_hints(at)[part]
    return [each.name for each in fields(at)] if is_dataclass(at) else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
