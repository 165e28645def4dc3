"""`make bench-kernels`: correctness first, then times, memory and share of the roofline."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

import torch

from benchmarks.contention import OtherLoad
from benchmarks.kernels.masks import DRAWS, load_masks
from benchmarks.kernels.plan import GRIDS, Filters, dtypes_of, plan
from benchmarks.kernels.problems import DTYPES
from benchmarks.kernels.report import as_json, table, write_page
from benchmarks.kernels.roofline import measure_machine
from benchmarks.kernels.run import Cells, WrongResultError, measure
from benchmarks.kernels.trainer import POINT, measure_trainer
from benchmarks.kernels.verify import check_all

_QUICK = Filters(dtypes=("fp32",), labels=(7_979,), features=(384,), batch=(1, 32), draws=DRAWS[:1])
# The last point began before the time was up; the page is still to be written.
_RESERVE_S = 15.0


def main() -> int:
    started_s = time.monotonic()
    arguments = _parser().parse_args()
    # Torch's profiler, which counts a CPU's allocations, reports its own start on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    filters = _QUICK if arguments.quick else _filters(arguments)
    dtypes = dtypes_of(device, filters)
    real = load_masks(arguments.masks) if arguments.masks is not None else None
    points, tables = plan(device, filters, real)
    if not points and not arguments.trainer:
        print("no point of the grid is left by these filters", file=sys.stderr)
        return 2

    print(f"Correctness on {device.type}, {', '.join(dtypes)}", flush=True)
    faults = check_all(device, dtypes)
    if faults:
        print("\n".join(faults), file=sys.stderr)
        print(f"{len(faults)} results are wrong: no times are taken", file=sys.stderr)
        return 1
    machine = measure_machine(device, dtypes)
    print(f"Measured here: {machine}", flush=True)

    cells: Cells = {}
    with_trainer = not filters and device.type == "cuda"
    if with_trainer if arguments.trainer is None else arguments.trainer:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"Training step: {POINT}", flush=True)
        cells[POINT] = measure_trainer(device)
    deadline_s = started_s + 60 * arguments.minutes - _RESERVE_S
    load = OtherLoad()
    try:
        cells |= measure(points, tables, device, machine, deadline_s, _say)
    except WrongResultError as error:
        print(f"wrong result, no table: {error}", file=sys.stderr)
        return 1
    text = table(cells, device, load.cores())
    print(f"\n{text}\n")
    if arguments.json is not None:
        content = as_json(cells, device, machine)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.page and filters:
        print("a part of the grid: no page is written")
    elif arguments.page:
        masks = "489 relevant labels a category, built as benchmarks/kernels/masks.py says"
        if real is not None:
            masks += f"; {real.name}: a real taxonomy's"
        page = write_page(
            text,
            command=shlex.join(["python", "-m", "benchmarks.kernels", *_shown_arguments()]),
            device=device,
            machine=machine,
            grid=GRIDS[device.type],
            masks=masks,
        )
        print(f"written: {page}")
    print(f"{time.monotonic() - started_s:.0f} s")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _shown_arguments() -> list[str]:
    """The command line, files by their name alone."""
    return [Path(each).name if "/" in each else each for each in sys.argv[1:]]


def _filters(arguments: argparse.Namespace) -> Filters:
    return Filters(
        ops=arguments.op,
        dtypes=arguments.dtype,
        labels=arguments.labels,
        features=arguments.features,
        batch=arguments.batch,
        draws=arguments.draw,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--op", nargs="+", choices=("masked_scores", "masked_bce"))
    parser.add_argument("--dtype", nargs="+", choices=tuple(DTYPES))
    parser.add_argument("--labels", nargs="+", type=int, metavar="L", help="only these")
    parser.add_argument("--features", nargs="+", type=int, metavar="D")
    parser.add_argument("--batch", nargs="+", type=int, metavar="B")
    parser.add_argument("--draw", nargs="+", choices=DRAWS)
    parser.add_argument("--quick", action="store_true", help="two small points, to try it out")
    parser.add_argument(
        "--masks", type=Path, metavar="FILE", help="real masks: benchmarks.kernels.export_masks"
    )
    parser.add_argument(
        "--trainer",
        action=argparse.BooleanOptionalAction,
        help="a training step at a million labels (some 12 GB); default: on a GPU",
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all; %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--page",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write benchmarks/results/ (of the whole grid only)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
