"""How torch's CPU threads wait for each other. Imports nothing heavy: it must run before torch."""

from __future__ import annotations

import os

__all__ = ["wait_passively"]


def wait_passively() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the environment says otherwise.

    A spinning thread holds the core that the thread it waits for needs: with one of two cores busy
    otherwise, MiniLM encoded 52 to 87 products/s spinning and 132 to 171 sleeping
    (docs/decisions/0005). OpenMP reads the variable once, when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
