"""`python -m benchmarks.batches`: how much a product's score depends on what it is batched with.

Every product is scored in three batchings: by cost, as ``sortiment-train evaluate`` batches; in the
order of a stream, 64 at a time; and alone.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.hardware import describe, short_name, versions
from models.loading import Dtype, load_predictor
from models.predictor import CategoryModel
from models.prepare import Prepared
from models.product import Product
from models.release import Release, read_release
from training.data import DataSet
from training.predictions import plan

_STREAM = 64
# The fastest of so many passes is the speed that is told.
_RUNS = 3
_RESULTS = Path(__file__).parent / "results"
_HEAD = (
    "| data | products | dtype | attention | against | largest | above 0.001 | above 0.00001 "
    "| other category | products/s |\n|---|---:|---|---|---|---:|---:|---:|---:|---:|"
)

Batching = Callable[[Prepared], Sequence[NDArray[np.int64]]]


def _alone(prepared: Prepared) -> Sequence[NDArray[np.int64]]:
    return [np.array([row]) for row in range(len(prepared))]


def _stream(prepared: Prepared) -> Sequence[NDArray[np.int64]]:
    count = len(prepared)
    return [np.arange(first, min(first + _STREAM, count)) for first in range(0, count, _STREAM)]


def _by_cost(prepared: Prepared) -> Sequence[NDArray[np.int64]]:
    return plan(prepared.costs)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Best category of each product, its score, and the seconds that all took."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: float


def _scores(model: CategoryModel, prepared: Prepared, batching: Batching) -> _Scores:
    rows = np.zeros(len(prepared), dtype=np.int64)
    scores = np.zeros(len(prepared), dtype=np.float32)
    started = time.perf_counter()
    with torch.inference_mode():
        for places in batching(prepared):
            features = model.encoder.encode(prepared.take(places))
            found = model.score_categories(features, 1)
            rows[places], scores[places] = found.rows[:, 0], found.scores[:, 0]
    return _Scores(rows, scores, time.perf_counter() - started)


def _lines(release: Release, data: str, products: Sequence[Product]) -> Iterator[str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds: list[tuple[Dtype, str]] = [
        ("float32", "torch's"),
        ("bfloat16", "torch's"),
        ("bfloat16", "aligned, as served"),
    ]
    for dtype, attention in kinds:
        plain = attention == "torch's"
        with patch("models.encoders.align_attention") if plain else nullcontext():
            predictor = load_predictor(release, device, dtype)
        if predictor.category is None:
            raise click.ClickException(f"release {release.id} has no category model")
        prepared = predictor.preparer.prepare(products)
        _scores(predictor.category, prepared.take(np.arange(min(64, len(prepared)))), _stream)
        streams = [_scores(predictor.category, prepared, _stream) for _ in range(_RUNS)]
        stream = streams[0]
        speed = len(products) / min(each.seconds for each in streams)
        for name, batching in (("by cost", _by_cost), ("alone", _alone)):
            other = _scores(predictor.category, prepared, batching)
            apart = np.abs(stream.scores - other.scores)
            yield (
                f"| {data} | {len(products):,} | {dtype} | {attention} | {name} "
                f"| {apart.max():.6f} | {(apart > 1e-3).mean():.2%} | {(apart > 1e-5).mean():.2%} "
                f"| {(stream.rows != other.rows).sum()} | {speed:,.1f} |"
            )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--release",
    "releases",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With an encoder and a category model; may come again.",
)
@click.option(
    "--data",
    "folders",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set whose test split is scored; one for each release.",
)
@click.option("--limit", default=500, show_default=True, type=click.IntRange(2))
@click.option(
    "--page/--no-page", default=True, show_default=True, help="Write benchmarks/results/."
)
def main(releases: Sequence[Path], folders: Sequence[Path], limit: int, page: bool) -> None:
    """Compare the scores of the same products in different batches."""
    if len(releases) != len(folders):
        raise click.UsageError("give a --data for each --release")
    command = ["python", "-m", "benchmarks.batches", "--limit", str(limit)]
    lines = [_HEAD]
    click.echo(_HEAD)
    for directory, folder in zip(releases, folders, strict=True):
        command += ["--release", directory.name, "--data", folder.name]
        products = [item.product for item in islice(DataSet(folder).products("test"), limit)]
        for line in _lines(read_release(directory), folder.name, products):
            click.echo(line)
            lines.append(line)
    if not page:
        return
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    text = [
        f"# One product in different batches, {day}",
        "",
        "Differences of the best category's score between batches of 64 in the order of a stream, "
        "and the batches that are named. The speed is that of the former, the fastest of three.",
        "",
        f"- Hardware: {describe()}, {torch.get_num_threads()} of its threads",
        f"- Versions: {versions('torch', 'transformers')}",
        f"- Command: `{shlex.join(command)}`",
        "",
        *lines,
    ]
    path = _RESULTS / f"batches_{short_name()}_{day}.md"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    click.echo(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
