"""Every contender at every point, within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.kernels import baselines, ours
from benchmarks.kernels.contenders import Call, Contender, is_baseline
from benchmarks.kernels.plan import Tables
from benchmarks.kernels.problems import Batch, Heads, Point, make_batch, make_heads
from benchmarks.kernels.roofline import Machine, ideal_ms
from benchmarks.kernels.timing import Timing, peak_bytes, time_calls
from benchmarks.kernels.verify import reference

__all__ = ["HOPELESS", "Cell", "WrongResultError", "contenders_of", "measure"]

# So many times slower than the best at the next smaller point: not tried at the larger one.
HOPELESS = 50
_HOPELESS = "hopeless"
# More time than this for a contender makes no quantile better.
_MOST_SECONDS = {"cuda": 0.08, "cpu": 0.24}
# Of an even share of the time left: the points to come are larger.
_TIME_SHARE = 0.6
# Results of a baseline next to what it needs by itself.
_MEMORY_SHARE = 0.8


class WrongResultError(Exception):
    """One of our own implementations gives a wrong result at a point of the grid."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a contender showed at a point.

    Attributes:
        timing: None where it was not measured; then ``reason`` says why: ``hopeless``, ``memory``,
            ``time``, ``failed: ...`` or ``wrong: ...``.
        roofline: ideal time over the median.
        taken: the variant by which ours went.
    """

    timing: Timing | None = None
    peak_bytes: int | None = None
    roofline: float | None = None
    reason: str | None = None
    taken: str | None = None

    @property
    def ms(self) -> float | None:
        """The median."""
        return None if self.timing is None else self.timing.ms_p50


Cells = dict[Point, dict[str, Cell]]


def contenders_of(op: str, device: torch.device, dtype: str) -> tuple[Contender, ...]:
    """All that is compared for an op in a dtype, ours first."""
    if op == "masked_scores":
        return (*ours.scores(device), *baselines.SCORES)
    return (*ours.LOSSES, *baselines.LOSSES)


def measure(
    points: Sequence[Point],
    tables: Tables,
    device: torch.device,
    machine: Machine,
    deadline_s: float,
    say: Callable[[str], None],
) -> Cells:
    """Measure until done or ``deadline_s`` of ``time.monotonic``; what was left out says why.

    Raises:
        WrongResultError: one of ours fails at a point.
    """
    cells: Cells = {}
    heads: tuple[tuple[object, ...], Heads] | None = None
    for number, point in enumerate(points):
        contenders = contenders_of(point.op, device, point.dtype)
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            cells[point] = {each.name: Cell(reason="time") for each in contenders}
            continue
        key = (point.dtype, point.num_labels, point.num_features)
        if heads is None or heads[0] != key:
            heads = None  # the old ones go before the new ones come
            if device.type == "cuda":
                torch.cuda.empty_cache()
            heads = (key, make_heads(point, device))
        batch = make_batch(point, heads[1], tables[point.masks]())
        most_s = _MOST_SECONDS[device.type] * len(contenders)
        budget_s = min(most_s, _TIME_SHARE * left_s / (len(points) - number))
        hopeless = {each.name for each in contenders if _is_hopeless(each.name, point, cells)}
        cells[point] = _measure_point(batch, contenders, hopeless, device, machine, budget_s)
        say(f"{number + 1}/{len(points)} {point}: {_summary(cells[point])}")
    return cells


def _measure_point(
    batch: Batch,
    contenders: Sequence[Contender],
    hopeless: set[str],
    device: torch.device,
    machine: Machine,
    budget_s: float,
) -> dict[str, Cell]:
    calls: dict[str, tuple[Contender, Call]] = {}
    cells: dict[str, Cell] = {}
    expected = reference(batch)
    for contender in contenders:
        name = contender.name
        if name in hopeless:
            cells[name] = Cell(reason=_HOPELESS)
            continue
        if contender.bytes_needed(batch) > _MEMORY_SHARE * free_bytes(device):
            cells[name] = Cell(reason="memory")
            continue
        try:
            with contender.scope():
                call = contender.prepare(batch)
                wrong = expected.complaint(name, call())
                peak = peak_bytes(call, device)
        except RuntimeError as error:
            if not is_baseline(name):
                raise
            is_memory = isinstance(error, torch.OutOfMemoryError)
            reason = "memory" if is_memory else f"failed: {_first_line(error)}"
            cells[name] = Cell(reason=reason)
            continue
        if wrong is not None:
            if not is_baseline(name):
                raise WrongResultError(f"{name} at {batch.point}: {wrong}")
            cells[name] = Cell(reason=f"wrong: {wrong}")
            continue
        calls[name] = (contender, call)
        taken = None if is_baseline(name) else ours.taken(device)
        cells[name] = Cell(peak_bytes=peak, taken=taken)
    for name, timing in time_calls(calls, device, budget_s).items():
        share = ideal_ms(batch, machine, name) / timing.ms_p50
        cells[name] = replace(cells[name], timing=timing, roofline=share)
    return cells


def _is_hopeless(name: str, point: Point, cells: Cells) -> bool:
    """Whether a baseline was beyond hope at a neighbour with fewer products or fewer labels."""
    if not is_baseline(name):
        return False
    for other in _smaller_neighbours(point, cells):
        cell = cells[other][name]
        if cell.timing is None:
            if cell.reason == _HOPELESS:
                return True
            continue
        best = min(each.ms for each in cells[other].values() if each.ms is not None)
        if cell.timing.ms_p50 > HOPELESS * best:
            return True
    return False


def _smaller_neighbours(point: Point, cells: Cells) -> list[Point]:
    """The next smaller batch, and the next smaller label space, with all else alike."""
    fewer_products = [
        other
        for other in cells
        if other.num_products < point.num_products
        and replace(other, num_products=point.num_products) == point
    ]
    fewer_labels = [
        other
        for other in cells
        if other.num_labels < point.num_labels
        and replace(other, num_labels=point.num_labels, masks=point.masks) == point
    ]
    return [
        *sorted(fewer_products, key=lambda other: other.num_products)[-1:],
        *sorted(fewer_labels, key=lambda other: other.num_labels)[-1:],
    ]


def free_bytes(device: torch.device) -> int:
    """Memory that a call may still take."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 4 << 30  # unknown: what any machine of these years has


def _summary(cells: dict[str, Cell]) -> str:
    return ", ".join(
        f"{name} {cell.ms:.4g} ms" if cell.ms is not None else f"{name} no ({cell.reason})"
        for name, cell in cells.items()
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
