"""Settings from flags, environment and a file ``.env``, with all that is wrong told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from worker.contradictions import Problem, find_contradictions
from worker.errors import ConfigError
from worker.settings import PREFIX, Settings, flag, shown, variable

__all__ = ["load_settings"]

# Not a setting of the worker, and no typing error: where local services keep what they fetch.
_NEIGHBOURS = frozenset({"SORTIMENT_CACHE"})
# What Kubernetes tells every pod of a Service that is called sortiment...
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def load_settings(
    flags: Mapping[str, Any] | None = None, env_file: Path | None = Path(".env")
) -> Settings:
    """Settings from flags, environment and ``env_file``, in this order, all checked.

    Args:
        flags: values by setting name; those that are None do not count.

    Raises:
        ConfigError: all that is wrong: variable, what was given (secrets masked), what is allowed.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems = _unknown_variables(env_file)
    wrong: set[str] = set()
    # The signature that a type checker derives from the fields lacks ``_env_file``.
    construct: Callable[..., Settings] = Settings
    try:
        settings = construct(_env_file=env_file, **given)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False):
            name = _field(str(fault["loc"][0]))
            wrong.add(name)
            allowed = fault["msg"].removeprefix("Value error, ")
            problems.append(f"{_called(name)}: {allowed}; given {shown(name, fault['input'])!r}")
        # What is wrong by itself stands at its default, so that the rest can be compared.
        defaults = {name: Settings.model_fields[name].default for name in wrong}
        settings = construct(_env_file=env_file, **(given | defaults))
    for problem in find_contradictions(settings):
        if wrong.isdisjoint(problem.fields):
            problems.append(_contradiction(settings, problem))
    if problems:
        raise ConfigError(problems)
    if settings.broker == "embedded":
        return settings.model_copy(update={"delivery": "at_least_once"})
    return settings


def _contradiction(settings: Settings, problem: Problem) -> str:
    given = " with ".join(
        f"{variable(name)}={shown(name, getattr(settings, name))}" for name in problem.fields
    )
    return f"{_called(problem.fields[0])}: allowed is {problem.allowed}; given {given}"


def _called(name: str) -> str:
    option = flag(name)
    return f"{variable(name)} ({option})" if option else variable(name)


def _field(location: str) -> str:
    if location in Settings.model_fields:
        return location
    return next(name for name in Settings.model_fields if variable(name) == location)


def _unknown_variables(env_file: Path | None) -> list[str]:
    known = {variable(name) for name in Settings.model_fields} | _NEIGHBOURS
    present = set(os.environ) | set(dotenv_values(env_file) if env_file else ())
    problems = []
    for name in sorted(present):
        if name.upper() in known or _is_a_services(name.upper(), os.environ.get(name, "")):
            continue
        if name.upper().startswith(PREFIX):
            nearest = get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.0)
            problems.append(f"{name}: there is no such variable; the nearest is {nearest[0]}")
    return problems


def _is_a_services(name: str, value: str) -> bool:
    is_address = name.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None
    return is_address or _OF_A_SERVICE.search(name) is not None
