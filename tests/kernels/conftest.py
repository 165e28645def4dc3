"""Where the ops are tested: the implementation of ``KERNEL_IMPL``, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels import selected_impls, use_impl
from kernels._dispatch import is_interpreted
from kernels._logits_torch import force_way
from kernels._variants import VARIANTS
from kernels._ways_torch import WAYS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = LOSS_IMPLS = [f"torch-{way}" for way in WAYS]
if torch.cuda.is_available():
    IMPLS = LOSS_IMPLS = ["triton", *(f"triton-{variant}" for variant in VARIANTS)]
elif is_interpreted():
    IMPLS = [f"triton-{variant}" for variant in VARIANTS]
    # The way to the logits is tested with the scores; what follows does not depend on it.
    LOSS_IMPLS = ["triton-gather"]


collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]
if is_interpreted():  # for numbers alone
    collect_ignore += ["test_interpreter.py", "test_compiled.py", "test_torch_library.py"]


def pytest_report_header() -> str:
    """Say what the tests of the ops run on."""
    where = "Triton's interpreter" if is_interpreted() else DEVICE
    left_out = f"; left out: {', '.join(collect_ignore)}" if collect_ignore else ""
    return f"label-masked ops: {', '.join(IMPLS)} on {where}{left_out}"


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture(params=IMPLS)
def impl(request: pytest.FixtureRequest) -> Iterator[str]:
    """The implementation under test; that it ran is checked at the end."""
    name, _, variant = request.param.partition("-")
    use_impl(name)
    if name == "triton":
        from kernels._logits_triton import force_variant

        force_variant(variant or None)
    else:
        force_way(next((way for way in WAYS if way == variant), None))
    yield name
    force_way(None)
    ran = selected_impls()
    assert ran, "no op ran"
    assert set(ran.values()) == {name}
    use_impl("auto")


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not written is NaN, or a number that no test expects."""
    empty = torch.empty

    def poison(*args: object, **kwargs: object) -> torch.Tensor:
        tensor = empty(*args, **kwargs)  # type: ignore[call-overload]
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 1_234_567)

    monkeypatch.setattr(torch, "empty", poison)
