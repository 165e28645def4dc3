"""One training step of a head of a million labels, optimizer included, in a process of its own.

The process is what makes its peak memory plain: the device's own count on a GPU, the largest
resident size on a CPU. ``python -m benchmarks.kernels.trainer`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.kernels import baselines
from benchmarks.kernels.contenders import is_baseline
from benchmarks.kernels.masks import paper_masks
from benchmarks.kernels.problems import Batch, Point, make_batch, make_heads
from benchmarks.kernels.run import Cell, free_bytes
from benchmarks.kernels.timing import Timing, quantiles
from kernels import masked_bce

__all__ = ["CONTENDERS", "POINT", "measure_trainer"]

POINT = Point("trainer_step", "fp32", 1_024, 768, 1_000_000, "uniform", "synthetic 1000000")
CONTENDERS = ("auto_sparse_grad", "baseline_dense")
_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 240.0
_LEARNING_RATE = 0.01
_BATCHES, _STEPS = 2, 6


def measure_trainer(device: torch.device) -> dict[str, Cell]:
    """Run a process a contender; a contender that does not fit says so."""
    cells = {}
    cell_bytes = POINT.num_products * POINT.num_labels * 4
    head_bytes = POINT.num_labels * POINT.num_features * 4
    for name in CONTENDERS:
        # Head and optimizer state; a dense one adds its gradient and seven of B x L.
        needed = 2 * head_bytes
        if is_baseline(name):
            needed += head_bytes + 7 * cell_bytes
        if needed > free_bytes(device):
            cells[name] = Cell(reason="memory")
            continue
        command = [sys.executable, "-m", "benchmarks.kernels.trainer", name]
        try:
            ran = subprocess.run(
                command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            cells[name] = Cell(reason="time")
            continue
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
            cells[name] = Cell(reason=f"failed: {last[:120]}")
            continue
        result = json.loads(ran.stdout.splitlines()[-1])
        cells[name] = Cell(Timing(*result["ms"]), result["peak_bytes"])
    return cells


def _steps(name: str, device: torch.device) -> tuple[list[float], int]:
    """Seconds of each step, and the peak in bytes."""
    heads = make_heads(POINT, device)
    weight, bias = heads.weight.requires_grad_(), heads.bias.requires_grad_()
    masks = paper_masks(POINT.num_labels)
    batches = [make_batch(POINT, heads, masks, seed) for seed in range(_BATCHES)]
    optimizer = torch.optim.Adagrad([weight, bias], lr=_LEARNING_RATE)
    loss_of = _dense_loss if is_baseline(name) else _our_loss
    seconds = []
    for step in range(1 + _STEPS):
        batch = batches[step % _BATCHES]
        _wait(device)
        started_s = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss_of(batch, weight, bias).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _wait(device)
        seconds.append(time.perf_counter() - started_s)
    if device.type == "cuda":
        return seconds[1:], torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1 << 10  # getrusage(2)
    return seconds[1:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _our_loss(batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
    return masked_bce(
        batch.features.requires_grad_(),
        weight,
        bias,
        batch.mask_indptr,
        batch.mask_indices,
        batch.mask_rows,
        batch.positive_indptr,
        batch.positive_indices,
        sparse_grad=True,
        num_entries=batch.num_entries,
        num_categories=batch.num_categories,
    )


def _dense_loss(batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
    return baselines.dense_loss(batch, batch.features.requires_grad_(), weight, bias)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.trainer")
    parser.add_argument("contender", choices=CONTENDERS)
    name = parser.parse_args().contender
    seconds, peak = _steps(name, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    timing = quantiles(seconds)
    ms = [timing.ms_p20, timing.ms_p50, timing.ms_p80]
    print(json.dumps({"ms": ms, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
