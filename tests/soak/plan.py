"""What is done to a soaking system and when: by chance, and the same again for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias, get_args

__all__ = ["KINDS", "Fault", "Kind", "plan"]

Kind: TypeAlias = Literal["sigterm", "kill9", "redis", "broker", "swap", "dead_letters"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FIRST_S = 10.0
_BETWEEN_S = (18.0, 32.0)
# The last fault is over before the end, so that the end is at rest.
_REST_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: seconds from the beginning; later where the one before takes longer.
        kind: of the worker that may be hit: SIGTERM or SIGKILL, and a new start; else: Redis
            restarted empty, a broker restarted, another release announced, events that are no
            products.
    """

    at_s: float
    kind: Kind


def plan(seed: int, seconds: float) -> list[Fault]:
    """Faults for so long a run: all kinds in each round, in an order of its own."""
    rng = Random(f"soak {seed}")
    found: list[Fault] = []
    at_s = _FIRST_S
    while True:
        for kind in rng.sample(KINDS, len(KINDS)):
            if at_s > seconds - _REST_S:
                return found
            found.append(Fault(at_s, kind))
            at_s += rng.uniform(*_BETWEEN_S)
