from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.kernels import baselines, ours
from benchmarks.kernels.contenders import Call, Contender
from benchmarks.kernels.masks import Shape, taxonomy_masks
from benchmarks.kernels.plan import Filters, plan
from benchmarks.kernels.problems import Batch, Point, make_batch, make_heads
from benchmarks.kernels.report import as_json, table
from benchmarks.kernels.roofline import Machine
from benchmarks.kernels.run import Cell, Cells, WrongResultError, measure
from benchmarks.kernels.timing import Timing, peak_bytes
from benchmarks.kernels.verify import reference

_CPU = torch.device("cpu")
_MACHINE = Machine(1e10, {"fp32": 1e11, "bf16": 1e11})
_MASKS = taxonomy_masks("tiny", 101, [7, 0, 31, 16], Shape(5, 0.5))
_POINT = Point("masked_scores", "fp32", 9, 17, 101, "uniform", "tiny")
# torch.compile takes seconds; the program itself runs it at every start.
_QUICK = tuple(each for each in baselines.SCORES if each.name != "baseline_compile")
_ROOT = Path(__file__).parents[3]


def _measure(points: list[Point], deadline_s: float) -> Cells:
    return measure(points, {"tiny": lambda: _MASKS}, _CPU, _MACHINE, deadline_s, lambda _: None)


@pytest.fixture(autouse=True)
def _without_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SCORES", _QUICK)


def test_points_are_measured_and_reported() -> None:
    cells = _measure([_POINT, replace(_POINT, dtype="bf16")], time.monotonic() + 60)
    text = table(cells, _CPU, None)
    assert text.count("| masked_scores |") == 2
    rows = as_json(cells, _CPU, _MACHINE)["rows"]
    names = {row["impl"] for row in rows}
    assert names == {
        "auto",
        "sampled",
        "grouped",
        "baseline_dense",
        "baseline_gather_bmm",
        "baseline_loop",
    }
    for row in rows:
        assert (row["op"], row["device"], row["B"], row["D"], row["L"], row["draw"]) == (
            "masked_scores",
            "cpu",
            9,
            17,
            101,
            "uniform",
        )
        assert 0 < row["ms_p20"] <= row["ms_p50"] <= row["ms_p80"]
        assert row["peak_bytes"] > 0
        assert row["roofline"] > 0


def test_what_the_time_does_not_allow_is_said() -> None:
    cells = _measure([_POINT], time.monotonic() - 1)
    assert {cell.reason for cell in cells[_POINT].values()} == {"time"}
    written = as_json(cells, _CPU, _MACHINE)
    assert written["rows"] == []
    assert {row["reason"] for row in written["skipped"]} == {"time"}
    assert "| time |" in table(cells, _CPU, None)


def test_losses_and_their_gradients_agree_with_float64() -> None:
    point = replace(_POINT, op="masked_bce")
    batch = make_batch(point, make_heads(point, _CPU), _MASKS)
    expected = reference(batch)
    for contender in (*ours.LOSSES, *baselines.LOSSES):
        with contender.scope():
            assert expected.complaint(contender.name, contender.prepare(batch)()) is None


def test_a_wrong_result_of_ours_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(batch: Batch) -> Call:
        def call() -> tuple[Tensor, ...]:
            return (torch.zeros(batch.num_entries),)

        return call

    monkeypatch.setattr(ours, "scores", lambda *_: (Contender("auto", zeros),))
    with pytest.raises(WrongResultError, match="auto at masked_scores fp32"):
        _measure([_POINT], time.monotonic() + 60)


def test_a_wrong_baseline_is_named_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Contender("baseline_wrong", lambda batch: lambda: (torch.zeros(batch.num_entries),))
    huge = Contender("baseline_huge", wrong.prepare, bytes_needed=lambda _: 1 << 60)
    monkeypatch.setattr(baselines, "SCORES", (wrong, huge))
    cells = _measure([_POINT], time.monotonic() + 60)[_POINT]
    assert (cells["baseline_wrong"].reason or "").startswith("wrong: error")
    assert cells["baseline_wrong"].timing is None
    assert cells["baseline_huge"].reason == "memory"


def test_a_hopeless_baseline_is_left_out_at_larger_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(batch: Batch) -> Call:
        call = baselines.SCORES[0].prepare(batch)

        def many() -> tuple[Tensor, ...]:
            for _ in range(2_000):
                call()
            return call()

        return many

    contenders = (_QUICK[0], Contender("baseline_slow", slow))
    monkeypatch.setattr(baselines, "SCORES", contenders)
    points = [replace(_POINT, num_products=size) for size in (1, 2, 3)]
    cells = _measure(points, time.monotonic() + 60)
    assert cells[points[0]]["baseline_slow"].timing is not None
    assert cells[points[1]]["baseline_slow"].reason == "hopeless"
    assert cells[points[2]]["baseline_slow"].reason == "hopeless"


def test_a_lost_choice_is_listed() -> None:
    def cell(ms: float, taken: str | None = None) -> Cell:
        return Cell(Timing(ms, ms, ms), 1, 0.5, taken=taken)

    # The best is taken, at a cost; the worst is.
    more, least = replace(_POINT, num_products=10), replace(_POINT, num_products=11)
    cells = {
        _POINT: {"auto": cell(1.2, "dense"), "dense": cell(1.0), "baseline_dense": cell(2.4)},
        more: {"auto": cell(1.3, "gather"), "gather": cell(1.25), "dense": cell(1.0)},
        least: {"auto": cell(1.05, "dense"), "gather": cell(1.0), "dense": cell(1.05)},
    }
    text = table(cells, _CPU, 0.5)
    taken, called = text.split("timed by itself")[1].split("as called")
    assert "within 10 % at 2 of 3 points, not at:" in taken
    assert f"- {more}: 1.25 times `dense` by `gather`" in taken
    assert "within 10 % at 1 of 3 points, not at:" in called
    assert f"- {_POINT}: 1.20 times `dense`\n" in called
    assert f"- {more}: 1.30 times `dense`\n" in called
    assert str(least) not in taken + called
    assert "Not a fair comparison" in text


def test_peak_counts_what_a_call_holds_at_once() -> None:
    def call() -> tuple[Tensor, ...]:
        torch.empty(1 << 20).fill_(1)
        return (torch.empty(1 << 18).fill_(1) + 1,)

    # 4 MiB, then two of 1 MiB: not their sum.
    assert peak_bytes(call, _CPU) == 4 << 20


def test_grids() -> None:
    points, tables = plan(torch.device("cuda"), Filters(ops=("masked_scores",)), None)
    assert len(points) == 5 * 3 * 5 * 3 * 3
    assert {point.masks for point in points} <= set(tables)
    points, _ = plan(_CPU, Filters(ops=("masked_scores",)), None)
    assert max(point.num_labels for point in points) == 131_072
    assert max(point.num_products for point in points) == 256
    twin = [
        p for p in points if (p.num_features, p.num_products, p.num_labels) == (384, 256, 27_675)
    ]
    assert {p.masks for p in twin} == {"synthetic 27675", "synthetic, Shopify's sizes"}


def test_only_torch_and_triton_are_needed() -> None:
    others = ("click", "demo", "models", "numpy", "orjson", "rich", "training", "worker")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r}))\n"
        "import benchmarks.kernels.__main__, benchmarks.kernels.trainer"
    )
    # A module that is None raises where it is imported.
    subprocess.run([sys.executable, "-c", program], cwd=_ROOT, check=True, timeout=120)
