"""Errors of the shared packages. The worker's tree (worker/errors.py) grows from the same root.

SortimentError
├─ ProductError     a product that cannot be taken; has a stable ``reason`` code
├─ TaxonomyError    a taxonomy file with problems; carries all of them
├─ ReleaseError     a release directory that is not what its manifest says
└─ ModelError       a model that cannot be built or run
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ModelError", "ProductError", "ReleaseError", "SortimentError", "TaxonomyError"]


class SortimentError(Exception):
    """Root of every error this project raises on purpose.

    ``retriable`` answers whether the same call may succeed later with nothing changed by hand.
    """

    retriable = False


class ProductError(SortimentError):
    """A product that cannot be taken.

    Args:
        reason: stable code, lower snake case (``missing_field``, ``wrong_type``, ...).
        detail: what, where and what to do, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TaxonomyError(SortimentError):
    """A taxonomy with problems: every one of them, each naming file, line or id."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} problem(s) in the taxonomy:\n{shown}")


class ReleaseError(SortimentError):
    """A release that is refused: missing, altered, of an unknown format or inconsistent."""


class ModelError(SortimentError):
    """A model that cannot be built from its release or that failed on a batch."""
