"""Names and shape of the worker's topics."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TopicsConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicsConfig:
    """Names and shape of the topics.

    Attributes:
        backfill: a second input, of past products; None: there is none.
        partitions: of each input and output, where the worker creates them.
        replication_factor: likewise, of every topic.
        create: whether a missing topic is created; else it is an error.
        max_event_bytes: largest message of an input, framing included.
    """

    input: str = "products"
    backfill: str | None = None
    categories: str = "product-categories"
    attributes: str = "product-attributes"
    dead_letters: str = "product-dead-letters"
    control: str = "sortiment-control"
    shadow: str = "product-shadow"
    partitions: int = 12
    replication_factor: int = 1
    create: bool = True
    max_event_bytes: int = 1_048_576

    @property
    def names(self) -> tuple[str, ...]:
        """Those that every worker needs: all but the shadow's."""
        others = (self.categories, self.attributes, self.dead_letters, self.control)
        return (*self.inputs, *others)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Where products come in."""
        return (self.input,) if self.backfill is None else (self.input, self.backfill)
