"""Time and peak memory of calls."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.kernels.contenders import Call, Contender

__all__ = ["Timing", "peak_bytes", "quantiles", "time_calls"]

_QUANTILES = (0.2, 0.5, 0.8)
_FEWEST_RUNS, _MOST_RUNS = 5, 200
# Below 4 ms quantiles stand on few runs. What is timed twice (as a graph, too), each time with
# warm-up and estimate, takes about four times the repetitions.
_FEWEST_REP_MS, _MOST_REP_MS = 4.0, 40.0
_REP_SHARE = 0.25
# Below this, launches from Python take a visible part: the call is also timed in a CUDA graph.
_LAUNCH_BOUND_MS = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """Quantiles of a call's time.

    Attributes:
        graph_ms_p50: the median of the same call captured in a CUDA graph, without the launches
            from Python; None where that is not told apart.
    """

    ms_p20: float
    ms_p50: float
    ms_p80: float
    graph_ms_p50: float | None = None


def time_calls(
    calls: Mapping[str, tuple[Contender, Call]], device: torch.device, budget_s: float
) -> dict[str, Timing]:
    """Times of every call at one point within about ``budget_s``; each ran once before."""
    if device.type == "cuda":
        share_s = budget_s / max(1, len(calls))
        return {
            name: _time_on_cuda(contender, call, share_s)
            for name, (contender, call) in calls.items()
        }
    return _time_in_turn(calls, budget_s)


def peak_bytes(call: Call, device: torch.device) -> int:
    """Most memory that a call held at once, its results included, its arguments not.

    On a CPU: of torch's allocations, from its profiler; what a BLAS holds by itself is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    with tempfile.TemporaryDirectory(prefix="sortiment-bench-") as scratch:
        path = Path(scratch) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    memory.sort(key=lambda event: event["args"]["Ev Idx"])
    changes: list[int] = [event["args"]["Bytes"] for event in memory]
    return max(accumulate(changes, initial=0))


def _time_in_turn(
    calls: Mapping[str, tuple[Contender, Call]], budget_s: float
) -> dict[str, Timing]:
    """One run of each in turn, so that whatever slows the machine down hits all alike.

    In another random order each time: who comes after one that read the same rows finds them in
    the cache.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    share_s = budget_s / max(1, len(calls))
    order = random.Random(0)
    for _ in range(_MOST_RUNS):
        due = [
            name
            for name in calls
            if len(samples[name]) < _FEWEST_RUNS or sum(samples[name]) < share_s
        ]
        order.shuffle(due)
        if not due:
            break
        for name in due:
            contender, call = calls[name]
            with contender.scope():
                started_s = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - started_s)
    return {name: quantiles(seconds) for name, seconds in samples.items()}


def quantiles(seconds: list[float]) -> Timing:
    """Of times in seconds, at least two."""
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return Timing(tenths[1] * 1e3, tenths[4] * 1e3, tenths[7] * 1e3)


def _time_on_cuda(contender: Contender, call: Call, share_s: float) -> Timing:
    rep_ms = min(_MOST_REP_MS, max(_FEWEST_REP_MS, share_s * 1e3 * _REP_SHARE))
    with contender.scope():
        p20, p50, p80 = _bench(call, rep_ms)
        if not contender.capturable or p50 >= _LAUNCH_BOUND_MS:
            return Timing(p20, p50, p80)
        graph = _captured(call)
    if graph is None:
        return Timing(p20, p50, p80)
    return Timing(p20, p50, p80, _bench(graph.replay, rep_ms)[1])


def _bench(call: object, rep_ms: float) -> tuple[float, float, float]:
    """Quantiles in ms; the L2 cache is cleared before every run."""
    from triton.testing import do_bench  # only here: triton is not everywhere torch is

    p20, p50, p80 = do_bench(call, warmup=rep_ms / 4, rep=rep_ms, quantiles=list(_QUANTILES))
    return p20, p50, p80


def _captured(call: Call) -> torch.cuda.CUDAGraph | None:
    """The call as a CUDA graph; None where it cannot be captured."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        return None
    return graph
