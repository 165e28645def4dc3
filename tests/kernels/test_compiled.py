"""Every kernel that can be chosen compiles for GPUs that are not here, without spilling."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.kernels.cases import cases
from tests.kernels.compiling import ARCHITECTURES, compile_case

_JOBS = min(4, os.cpu_count() or 1)


def _fault(position: int, capability: int, aligned_rows: bool, directory: Path) -> str | None:
    """What is wrong with a case, if anything; by position, since kernels cannot be pickled."""
    case = cases()[position]
    own = directory / f"{position}-{aligned_rows}"
    own.mkdir()
    os.environ["TRITON_CACHE_DIR"] = str(own / "cache")
    made = compile_case(case, capability, own, aligned_rows=aligned_rows)
    if made.spilled_bytes or made.shared_bytes > ARCHITECTURES[capability]:
        return f"{case} (rows aligned: {aligned_rows}): {made}"
    return None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_no_kernel_spills_or_wants_more_shared_memory(capability: int, tmp_path: Path) -> None:
    every = cases()
    assert len(every) > 60
    assert len({case.name for case in every}) == len(every)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_JOBS, mp_context=context) as pool:
        faults = [
            pool.submit(_fault, position, capability, aligned_rows, tmp_path)
            for position, case in enumerate(every)
            # Kernels that read no rows come in one form.
            for aligned_rows in ((True, False) if case.reads_rows else (True,))
        ]
        assert [fault for future in faults if (fault := future.result()) is not None] == []


def test_a_kernel_that_spills_is_found_out(tmp_path: Path) -> None:
    """The check can fail: far too large a tile for its registers."""
    case = next(case for case in cases() if case.name.startswith("grouped-fp32-fp32"))
    case = case.with_constants(BLOCK_M=64, BLOCK_N=128)
    assert compile_case(case, 80, tmp_path, aligned_rows=True).spilled_bytes > 0
