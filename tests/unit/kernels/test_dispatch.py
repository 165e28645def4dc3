import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import kernels
from kernels import _dispatch
from kernels._dispatch import ImplInfo, implementation, selected_impls, use_impl

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("KERNEL_IMPL", raising=False)
    monkeypatch.setattr(_dispatch, "_state", {})
    monkeypatch.setattr(_dispatch, "_loaded", {})
    monkeypatch.setattr(_dispatch, "_selected", {})
    yield


def test_the_package_is_ours() -> None:
    """The name is also a package's on PyPI."""
    assert kernels.__file__ is not None
    assert Path(kernels.__file__).parents[1] == Path(__file__).parents[3]


@pytest.mark.parametrize(
    "op", ["masked_scores", "masked_scores_above", "masked_top_k", "masked_bce"]
)
def test_every_op_has_a_torch_twin(op: str) -> None:
    use_impl("torch")
    assert implementation(op, CPU).__module__.endswith("_torch")
    assert selected_impls() == {f"{op}/cpu": "torch"}


def test_auto_logs_its_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="kernels._dispatch"):
        implementation("masked_scores", CPU)
        implementation("masked_scores", CPU)
    assert [record.getMessage() for record in caplog.records] == [
        "masked_scores on cpu runs as torch"
    ]


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_IMPL", "triton")
    with pytest.raises(NotImplementedError, match=r"KERNEL_IMPL=triton.*masked_scores.*cpu"):
        implementation("masked_scores", CPU)


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_IMPL", "cuda")
    with pytest.raises(ValueError, match="'cuda'"):
        implementation("masked_scores", CPU)


def test_auto_takes_the_first_that_runs_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ImplInfo(
        op="masked_bce",
        name="triton",
        module="kernels.masked_bce_torch",
        device_types=frozenset({"cuda"}),
    )
    monkeypatch.setattr(_dispatch, "REGISTRY", (first, *_dispatch.REGISTRY))
    implementation("masked_bce", CPU)
    implementation("masked_bce", torch.device("cuda"))
    assert selected_impls() == {"masked_bce/cpu": "torch", "masked_bce/cuda": "triton"}


def test_an_implementation_is_named_as_a_choice() -> None:
    with pytest.raises(ValueError, match="'auto'"):
        ImplInfo(op="masked_bce", name="auto", module="kernels.masked_bce_torch")
