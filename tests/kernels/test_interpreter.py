"""The kernels' numbers without a GPU: the same tests in Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("tests", "least"),
    [
        ("tests/kernels/test_scores.py", 150),
        ("tests/kernels/test_bce.py", 45),
        ("tests/property/test_masked_ops.py", 2),
    ],
)
def test_the_kernels_pass_in_the_interpreter(tests: str, least: int) -> None:
    environ = os.environ | {"TRITON_INTERPRET": "1", "KERNEL_IMPL": "triton"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.kernels.interpreted"]
    command += ["-p", "no:cacheprovider", tests]
    run = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
    assert "skipped" not in run.stdout
