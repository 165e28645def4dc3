"""What the hardware allows, measured, and the least that a problem asks of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.kernels.problems import DTYPES, Batch

__all__ = ["Machine", "ideal_ms", "measure_machine"]

_RUNS = 9
_COPIED_BYTES = {"cuda": 2 << 30, "cpu": 256 << 20}
_MATMUL_SIZE = {"cuda": 8_192, "cpu": 1_536}
_SCORE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes per second of a copy, read and written; FLOP/s of a matrix product by dtype."""

    bytes_per_s: float
    flops: dict[str, float]

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in self.flops.items())
        return f"copy {self.bytes_per_s / 1e9:,.0f} GB/s; matrix product, TFLOP/s: {rates}"


def measure_machine(device: torch.device, dtypes: list[str]) -> Machine:
    """The roofs, by torch's own copy and matrix product."""
    size = _COPIED_BYTES[device.type]
    source = torch.zeros(size // 4, device=device)
    copy_s = _median_s(partial(torch.empty_like(source).copy_, source), device)
    edge = _MATMUL_SIZE[device.type]
    flops = {}
    for name in dtypes:
        square = torch.randn(edge, edge, device=device).to(DTYPES[name])
        flops[name] = 2 * edge**3 / _median_s(partial(torch.matmul, square, square), device)
    return Machine(2 * size / copy_s, flops)


def ideal_ms(batch: Batch, machine: Machine, contender: str) -> float:
    """Time at the roof: the larger of bytes over bandwidth and operations over rate.

    Scores: each touched label's row read once, each product's features, every score written.
    Loss: rows, features and their gradients pass once each (a dense gradient whole), and three
    products instead of one. Index tensors are left out.
    """
    point = batch.point
    element = batch.features.element_size()
    rows = batch.num_touched * (point.num_features + 1) * element
    features = point.num_products * point.num_features * element
    flops = 2 * batch.num_entries * point.num_features
    if point.op == "masked_scores":
        moved = rows + features + batch.num_entries * _SCORE_BYTES
    else:
        flops *= 3
        gradient = rows
        if not contender.endswith("sparse_grad"):
            gradient = point.num_labels * (point.num_features + 1) * element
        moved = rows + gradient + 2 * features
    return 1e3 * max(moved / machine.bytes_per_s, flops / machine.flops[point.dtype])


def _median_s(call: Callable[[], object], device: torch.device) -> float:
    call()
    seconds = []
    for _ in range(_RUNS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started_s = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)
