"""Plugin for tests that run in Triton's interpreter: a process of its own, started by a test.

Triton decides at its import whether kernels are interpreted, so the environment must say so first.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

from kernels import selected_impls
from kernels._dispatch import is_interpreted

# A program that a GPU starts by the thousand takes the interpreter milliseconds.
settings.register_profile("interpreter", max_examples=12, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    if not is_interpreted():
        raise pytest.UsageError("set TRITON_INTERPRET=1 before Triton is imported")
    settings.load_profile("interpreter")
    # Where a GPU's exp gives infinity, numpy's warns as well.
    config.addinivalue_line("filterwarnings", "ignore:overflow encountered in exp:RuntimeWarning")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where the twin stood in for the kernels."""
    if set(selected_impls().values()) - {"triton"}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
