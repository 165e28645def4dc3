"""The table, for people and for machines, and what it says about our own choices."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import describe, short_name, versions
from benchmarks.kernels.contenders import is_baseline
from benchmarks.kernels.problems import Point
from benchmarks.kernels.roofline import Machine
from benchmarks.kernels.run import HOPELESS, Cell, Cells
from benchmarks.kernels.timing import Timing

__all__ = ["as_json", "table", "write_page"]

# What the choice may lose to the best of our variants.
_MOST_LOST = 1.10
# A quiet machine shows some hundredths; a tenth of a core begins to move the figures.
_MOST_OTHER_CORES = 0.1
_RESULTS = Path(__file__).parents[1] / "results"
_SMALL_LABELS = 7_979
_LARGE_LABELS = 500_000

_LEGEND = f"""\
Times in ms: median (20th-80th percentile); `g`: median of the same call captured in a CUDA graph, \
where Python's launches weigh. `memory`: does not fit. `hopeless`: over {HOPELESS} times the best \
at the next smaller batch or label space, not tried. `time`: the run's time was up. `x`: best \
baseline over `auto`. MiB: most memory a call held beyond its arguments (`auto`, then \
`baseline_dense`); for `trainer_step` all of the process or device. Roof: ideal time over `auto`'s \
(touched rows, features and results moved once at the measured bandwidth, or the measured rate of \
a matrix product, whichever takes longer); of rows that a cache still holds it may pass 100 %.

`auto` and the variants without prefix are this project's, called as a user does, with \
`num_entries` and `num_categories` given; `baseline_*` get the index tensors that they need for \
free. `baseline_dense`: eager linear, sigmoid, relevant entries picked; `baseline_compile`: the \
same under `torch.compile(dynamic=True)`; `baseline_gather_bmm`: all label rows gathered, batched \
product, in chunks; `baseline_loop`: a product a category. `masked_bce`: forward and backward; \
`auto` gives dense gradients, `auto_sparse_grad` those of touched rows, `baseline_dense` logits of \
all labels, cross-entropy times a mask. `trainer_step`: that and Adagrad."""


def table(cells: Cells, device: torch.device, other_cores: float | None) -> str:
    """Markdown: a line a point, a column a contender; then what follows from it.

    Args:
        other_cores: that processes of somebody else kept busy meanwhile; None: unknown.
    """
    names = list(dict.fromkeys(name for row in cells.values() for name in row))
    names.sort(key=is_baseline)
    head = ["op", "dtype", "L", "D", "B", "draw", *(f"`{name}`" for name in names)]
    head += ["x", "MiB", "roof"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|---:|---:|---:|---|{'---:|' * (len(names) + 3)}"]
    lines += [_line(point, row, names) for point, row in cells.items()]
    text = [*lines, "", _LEGEND, "", *_choices(cells), *_shown(cells, device), *_failures(cells)]
    if other_cores is not None and other_cores > _MOST_OTHER_CORES:
        busy = f"other processes kept {other_cores:.1f} cores busy meanwhile."
        text.append(f"**Not a fair comparison**: {busy}")
    return "\n".join(text).rstrip()


def as_json(cells: Cells, device: torch.device, machine: Machine) -> dict[str, Any]:
    """``{"rows": [...], "skipped": [...], "machine": {...}}``: measured rows, and the others."""
    rows, skipped = [], []
    for point, row in cells.items():
        for name, cell in row.items():
            place = {
                "op": point.op,
                "impl": name,
                "device": device.type,
                "dtype": point.dtype,
                "B": point.num_products,
                "D": point.num_features,
                "L": point.num_labels,
                "draw": point.draw,
                "masks": point.masks,
            }
            if cell.timing is None:
                skipped.append({**place, "reason": cell.reason})
                continue
            rows.append(
                {
                    **place,
                    "ms_p20": cell.timing.ms_p20,
                    "ms_p50": cell.timing.ms_p50,
                    "ms_p80": cell.timing.ms_p80,
                    "graph_ms_p50": cell.timing.graph_ms_p50,
                    "peak_bytes": cell.peak_bytes,
                    "roofline": cell.roofline,
                    "taken": cell.taken,
                }
            )
    measured = {"bytes_per_s": machine.bytes_per_s, "flops": machine.flops}
    return {"rows": rows, "skipped": skipped, "machine": measured}


def write_page(
    text: str, *, command: str, device: torch.device, machine: Machine, grid: str, masks: str
) -> Path:
    """``results/kernels_<hardware>_<date>.md``; the same day's is replaced."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    path = _RESULTS / f"kernels_{short_name()}_{today}.md"
    path.parent.mkdir(exist_ok=True)
    packages = [name for name in ("torch", "triton") if find_spec(name) is not None]
    no_gpu = "" if device.type == "cuda" else "No GPU was at hand: these are CPU figures only.\n\n"
    path.write_text(
        f"# Kernels, {today}\n\n{no_gpu}"
        f"- Hardware: {describe()}\n"
        f"- Measured at the start: {machine}\n"
        f"- Versions: {versions(*packages)}\n"
        f"- Grid: {grid}\n"
        f"- Masks: {masks}\n"
        f"- Command: `{command}`\n"
        "- Before any time was taken every contender agreed with float64 at small and odd shapes, "
        "and each again by samples at every point\n\n"
        f"{text}\n"
    )
    return path


def _line(point: Point, row: dict[str, Cell], names: list[str]) -> str:
    ours = row.get("auto", row.get("auto_sparse_grad", Cell()))
    dense = row.get("baseline_dense", Cell())
    best = _fastest(row, [name for name in row if is_baseline(name)])
    ratio = "–" if best is None or ours.ms is None else f"{best / ours.ms:.2f}"
    roof = "–" if ours.roofline is None else f"{ours.roofline:.0%}"
    cells = [
        point.op,
        point.dtype,
        f"{point.num_labels:,}",
        f"{point.num_features:,}",
        f"{point.num_products:,}",
        point.draw,
        *(_shown_cell(row.get(name)) for name in names),
        ratio,
        f"{_mib(ours)}; {_mib(dense)}",
        roof,
    ]
    return f"| {' | '.join(cells)} |"


def _shown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.timing is None:
        return (cell.reason or "–").partition(":")[0]
    timing = cell.timing
    text = f"{timing.ms_p50:.3g} ({timing.ms_p20:.3g}-{timing.ms_p80:.3g})"
    return text if timing.graph_ms_p50 is None else f"{text} g {timing.graph_ms_p50:.3g}"


def _mib(cell: Cell) -> str:
    return "–" if cell.peak_bytes is None else f"{cell.peak_bytes / 2**20:,.1f}"


def _fastest(row: dict[str, Cell], names: Iterable[str]) -> float | None:
    return min((ms for name in names if (ms := row[name].ms) is not None), default=None)


def _choices(cells: Cells) -> list[str]:
    """How far ``auto``, and the variant that it takes, are from the best, point by point."""
    lost: dict[str, list[str]] = {"auto": [], "taken": []}
    compared = 0
    for point, row in cells.items():
        timings = {
            name: cell.timing
            for name, cell in row.items()
            if cell.timing is not None and not name.startswith("baseline_")
        }
        taken = row["auto"].taken if "auto" in row else None
        if point.op != "masked_scores" or "auto" not in timings or taken not in timings:
            continue
        compared += 1
        times = {name: _compared_ms(each, [*timings.values()]) for name, each in timings.items()}
        best = min((name for name in times if name != "auto"), key=times.__getitem__)
        for name, ms in (("auto", times["auto"]), ("taken", times[taken])):
            if ms > _MOST_LOST * times[best]:
                how = f" by `{taken}`" if name == "taken" else ""
                lost[name].append(f"- {point}: {ms / times[best]:.2f} times `{best}`{how}")
    if not compared:
        return []
    return [
        *_verdict("The variant that `auto` takes, timed by itself,", lost["taken"], compared),
        *_verdict("`auto` as called, the cost of choosing included,", lost["auto"], compared),
    ]


def _verdict(what: str, lost: list[str], compared: int) -> list[str]:
    verdict = (
        f"{what} against the best variant (20th percentiles; medians of the graphs where all have "
        f"one): within 10 % at {compared - len(lost)} of {compared} points"
    )
    return [f"{verdict}, not at:", "", *lost, ""] if lost else [f"{verdict}.", ""]


def _compared_ms(timing: Timing, all_timings: list[Timing]) -> float:
    """In a graph, where all were: the device's time alone. Else what noise touches least."""
    if timing.graph_ms_p50 is not None and all(t.graph_ms_p50 is not None for t in all_timings):
        return timing.graph_ms_p50
    return timing.ms_p20


def _shown(cells: Cells, device: torch.device) -> list[str]:
    """The figures that the project set itself, as measured."""
    lines = _gpu_figures(cells) if device.type == "cuda" else _cpu_figures(cells)
    return [*lines, ""] if lines else []


def _cpu_figures(cells: Cells) -> list[str]:
    return [
        f"- `baseline_dense` / `auto` at {point}, {point.masks} masks: "
        f"{dense / auto:.2f} (wanted: {6 if point.dtype == 'fp32' else 2.5})"
        for point, row in cells.items()
        if point.op == "masked_scores" and not point.masks.startswith("synthetic ")
        if (point.num_products, point.num_features, point.draw) == (256, 384, "uniform")
        if (auto := row["auto"].ms) is not None
        if (dense := row["baseline_dense"].ms) is not None
    ]


def _gpu_figures(cells: Cells) -> list[str]:
    over_compiled, lost_small, roofs, loss_time, loss_memory = [], [], [], [], []
    for point, row in cells.items():
        auto = row.get("auto", Cell())
        if point.op == "masked_scores" and auto.ms is not None:
            compiled = row["baseline_compile"].ms
            if (
                point.num_labels >= 131_072
                and point.num_features <= 768
                and point.num_products <= 1_024
                and compiled is not None
            ):
                over_compiled.append((compiled / auto.ms, str(point)))
            others = _fastest(row, [name for name in row if is_baseline(name)])
            if point.num_labels == _SMALL_LABELS and others is not None:
                lost_small.append((auto.ms / others, str(point)))
            if (point.num_labels, point.num_products) == (_LARGE_LABELS, 1_024):
                roofs.append((auto.roofline or 0.0, str(point)))
        if point.op == "masked_bce" and point.num_labels == _LARGE_LABELS:
            dense, sparse = row["baseline_dense"], row["auto_sparse_grad"]
            if dense.ms is not None and sparse.ms is not None:
                loss_time.append((dense.ms / sparse.ms, str(point)))
                loss_memory.append(
                    ((dense.peak_bytes or 0) / max(1, sparse.peak_bytes or 0), str(point))
                )
    lines = []
    for values, worst, what in (
        (over_compiled, min, "`baseline_compile` / `auto` at L >= 131,072, D <= 768, B <= 1,024"),
        (lost_small, max, "`auto` / best baseline at L = 7,979"),
        (roofs, min, "roofline at B = 1,024, L = 500,000"),
        (loss_time, min, "loss at L = 500,000: time, `baseline_dense` / `auto_sparse_grad`"),
        (loss_memory, min, "loss at L = 500,000: memory, the same"),
    ):
        if values:
            figure, where = worst(values)
            lines.append(f"- {what}: {figure:.2f} at its worst ({where}), {len(values)} points")
    return lines


def _failures(cells: Cells) -> list[str]:
    return [
        f"- `{name}` at {point}: {cell.reason}"
        for point, row in cells.items()
        for name, cell in row.items()
        if cell.reason is not None and ":" in cell.reason
    ]
