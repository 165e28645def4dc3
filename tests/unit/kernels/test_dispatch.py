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
    "op",
    [
        "masked_scores",
        "masked_scores_above",
        "masked_top_k",
        "masked_bce_forward",
        "masked_bce_backward",
    ],
)
def test_every_op_has_a_torch_twin(op: str) -> None:
    use_impl("torch")
    assert implementation(op, CPU, torch.float32).__module__.endswith("_torch")
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


def test_auto_takes_the_first_that_runs_on_the_device() -> None:
    implementation("masked_scores", CPU, torch.float32)
    implementation("masked_scores", torch.device("cuda"), torch.float32, torch.bfloat16)
    assert selected_impls() == {"masked_scores/cpu": "torch", "masked_scores/cuda": "triton"}


def test_float64_runs_as_torch_and_never_silently_as_triton() -> None:
    implementation("masked_scores", torch.device("cuda"), torch.float64, torch.float32)
    assert selected_impls() == {"masked_scores/cuda": "torch"}
    use_impl("triton")
    with pytest.raises(NotImplementedError, match="runs on cuda with float64, float32"):
        implementation("masked_scores", torch.device("cuda"), torch.float64, torch.float32)


def test_only_an_explicit_choice_runs_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    implementation("masked_scores", CPU, torch.float32)
    assert selected_impls() == {"masked_scores/cpu": "torch"}
    use_impl("triton")
    implementation("masked_scores", CPU, torch.float32)
    assert selected_impls() == {"masked_scores/cpu": "triton"}


def test_an_implementation_is_named_as_a_choice() -> None:
    with pytest.raises(ValueError, match="'auto'"):
        ImplInfo(op="masked_scores", name="auto", module="kernels.masked_scores_torch")


def test_without_triton_auto_takes_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert implementation("masked_scores", cuda, torch.float32).__module__.endswith("_triton")
    monkeypatch.setattr(_dispatch, "_has_triton", lambda: False)
    use_impl("auto")
    assert implementation("masked_scores", cuda, torch.float32).__module__.endswith("_torch")
    use_impl("triton")
    with pytest.raises(NotImplementedError, match="no such implementation"):
        implementation("masked_scores", cuda, torch.float32)
