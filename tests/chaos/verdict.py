"""What was sent against what a reader of committed events was given: lost, twice, out of order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.streams import Place

__all__ = ["Kind", "Ledger", "Output", "Verdict"]

Kind: TypeAlias = Literal["categories", "attributes", "dead_letters"]


@dataclass(frozen=True, slots=True)
class Output:
    """One output event, as far as it matters here.

    Attributes:
        place: partition and offset of its input event.
        at: partition and offset that it was read from.
    """

    kind: Kind
    place: Place
    key: bytes | None
    at: Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """Input events with which something is wrong, by what it is; all empty: nothing is.

    Attributes:
        lost: neither both results nor a dead letter.
        twice: the same output more than once, or a result and a dead letter.
        out_of_order: an output behind that of a later input event with the same key.
        strange: an output of an event that was never sent.
    """

    lost: frozenset[Place] = frozenset()
    twice: frozenset[Place] = frozenset()
    out_of_order: frozenset[Place] = frozenset()
    strange: frozenset[Place] = frozenset()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.twice or self.out_of_order or self.strange)

    def __or__(self, other: Verdict) -> Verdict:
        """What is wrong with either."""
        return Verdict(
            self.lost | other.lost,
            self.twice | other.twice,
            self.out_of_order | other.out_of_order,
            self.strange | other.strange,
        )


class Ledger:
    """Takes outputs in the order in which one reader is given them."""

    def __init__(self) -> None:
        self._seen: dict[Kind, defaultdict[Place, list[Place]]] = {
            "categories": defaultdict(list),
            "attributes": defaultdict(list),
            "dead_letters": defaultdict(list),
        }
        # By output, key and input partition: a key that lies in several has no order among them.
        self._newest: dict[tuple[Kind, bytes, int], int] = {}
        self._out_of_order: set[Place] = set()
        self.num_outputs = 0

    def take(self, output: Output) -> None:
        """Note an output."""
        self.num_outputs += 1
        found = self._seen[output.kind][output.place]
        found.append(output.at)
        if len(found) > 1 or output.key is None:
            return  # a repetition is one wrong, not two
        partition, offset = output.place
        line = (output.kind, output.key, partition)
        if offset < self._newest.get(line, -1):
            self._out_of_order.add(output.place)
        else:
            self._newest[line] = offset

    def lacks(self, sent: Mapping[Place, bool]) -> frozenset[Place]:
        """Input events that have not come out whole so far."""
        return frozenset(sent.keys() - self._results - self._seen["dead_letters"].keys())

    def verdict(self, sent: Mapping[Place, bool]) -> Verdict:
        """Judge all that was taken by all that was sent."""
        places = {place for kind in self._seen.values() for place in kind}
        dead = self._seen["dead_letters"].keys()
        repeated = {
            place for kind in self._seen.values() for place, at in kind.items() if len(at) > 1
        }
        results = self._seen["categories"].keys() | self._seen["attributes"].keys()
        return Verdict(
            lost=self.lacks(sent),
            twice=frozenset(repeated | (results & dead)),
            out_of_order=frozenset(self._out_of_order),
            strange=frozenset(places - sent.keys()),
        )

    def misjudged(self, sent: Mapping[Place, bool]) -> int:
        """How many products became dead letters, and other events results."""
        dead, results = self._seen["dead_letters"].keys(), self._results
        return sum(
            place in dead if is_product else place in results for place, is_product in sent.items()
        )

    def describe(self, place: Place) -> str:
        """Where the outputs of an input event were read."""
        found = {kind: outputs[place] for kind, outputs in self._seen.items() if place in outputs}
        counts = Counter({kind: len(at) for kind, at in found.items()})
        return f"input {place}: {dict(counts) or 'no output'}, at {found}"

    @property
    def _results(self) -> set[Place]:
        return self._seen["categories"].keys() & self._seen["attributes"].keys()
