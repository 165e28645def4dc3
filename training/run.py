"""A recipe in, a release out.

Every random choice comes from the seed: the same recipe, data and machine give the same weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.errors import SortimentError
from models.manifest import Manifest
from training.abstention import Promise
from training.changes import Changes
from training.data import DataSet
from training.loop import train
from training.loop_state import Outcome
from training.prepared import SplitOnDisk, prepare_split
from training.processes import Processes
from training.recipe import AveBertSettings, Recipe
from training.scalars import Scalars
from training.system import Job, System, make_system

__all__ = ["Fitted", "RunReport", "check_target", "fit_system", "run"]

# Valid products for each four training products where training is limited, and at least so many.
_VALID_SHARE = 4
_VALID_LEAST = 1000

# What has no part in the weights.
_OTHERWISE = ("about", "cache", "data", "device", "name", "out", "progress", "resume", "version")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What came of it: the release's folder, measures on valid, and seconds by stage."""

    release: Path
    metrics: dict[str, float]
    outcome: Outcome
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained system, not yet released; ``checkpoint`` is to be removed when it is."""

    system: System
    outcome: Outcome
    checkpoint: Path


def run(recipe: Recipe, say: Say = print) -> RunReport | None:
    """Train a recipe's system and write its release.

    Args:
        say: takes a line of news for people.

    Returns:
        The report; None in all processes but the main one.

    Raises:
        SortimentError: data, taxonomy or encoder cannot be used, or ``out`` is there already.
        training.loop.Interrupted: told to stop; the run is kept.
    """
    check_target(recipe)
    clock = _Clock()
    processes = Processes(recipe.device, in_parts=recipe.system.kind == "dhpc")
    told = say if processes.is_main else _silent
    fitted = fit_system(recipe, processes, told, lap=clock.lap)
    if not processes.is_main:
        processes.wait()
        return None
    metrics = fitted.system.publish(recipe.out, fitted.outcome.epochs)
    settings = recipe.system
    if not isinstance(settings, AveBertSettings) and metrics.get("coverage") == 0:
        say(Promise.of(settings).unkept(metrics["products"]))
    fitted.checkpoint.unlink(missing_ok=True)
    clock.lap("publish")
    processes.wait()
    return RunReport(recipe.out, metrics, fitted.outcome, clock.laps)


def fit_system(
    recipe: Recipe,
    processes: Processes,
    say: Say,
    *,
    lap: Callable[[str], object] = lambda _stage: None,
    make: Callable[[Job], System] = make_system,
    keep_end: bool = False,
) -> Fitted:
    """Prepare, train.

    Args:
        lap: called with the name of each stage at its end.
        make: makes the system.
        keep_end: as ``train`` takes it.
    """
    recipe = replace(recipe, progress=bool(recipe.progress))
    torch.manual_seed(recipe.seed)
    data = DataSet(recipe.data)
    job = Job(recipe, data.taxonomy, processes)
    lap("read")
    system = make(job)
    with processes.main_first():
        train_split, valid_split = _splits(data, job, system, say)
        lap("prepare")
        learner = system.learn(train_split, valid_split)
        lap("encode")
    fingerprint = _fingerprint(recipe, system, train_split, valid_split)
    run_name = fingerprint[:32]
    checkpoint = recipe.cache / "runs" / run_name / "checkpoint.pt"
    if processes.is_main and checkpoint.exists():
        if recipe.resume:
            say(f"going on from {checkpoint}")
        else:
            checkpoint.unlink()
    with ExitStack() as stack:
        scalars = None
        if processes.is_main and recipe.tensorboard is not None:
            scalars = stack.enter_context(Scalars(recipe.tensorboard, run_name))
        outcome = train(
            learner,
            recipe.train,
            seed=recipe.seed,
            processes=processes,
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            scalars=scalars,
            progress=job.shows_progress,
            keep_end=keep_end,
        )
    lap("train")
    return Fitted(system, outcome, checkpoint)


def _splits(data: DataSet, job: Job, system: System, say: Say) -> tuple[SplitOnDisk, SplitOnDisk]:
    limit = job.recipe.limit
    limits = {
        "train": limit,
        "valid": None if limit is None else max(_VALID_LEAST, limit // _VALID_SHARE),
    }
    changes = Changes(job.recipe.changes, job.recipe.seed, job.taxonomy)
    found = []
    for split, at_most in limits.items():
        shown = "training" if split == "train" else split
        with tqdm(desc=f"prepare {shown}", unit="product", disable=not job.shows_progress) as bar:
            made = prepare_split(
                data,
                split,
                limit=at_most,
                seed=job.recipe.limit_seed,
                preparer=system.preparer,
                preparer_key=system.preparer_key,
                taxonomy=job.taxonomy,
                categories=system.categories,
                labels=system.labels,
                cache_dir=job.recipe.cache,
                changes=changes,
                advance=bar.update,
            )
        say(f"{made.odd.products:,} {shown} products")
        for line in made.odd.lines(shown):
            say(line)
        found.append(made)
    train_split, valid_split = found
    if not len(train_split) or not len(valid_split):
        raise SortimentError(
            f"{data.directory} has {len(train_split)} training and {len(valid_split)} valid "
            "products: both are needed, to learn from and to set thresholds on"
        )
    return train_split, valid_split


def check_target(recipe: Recipe) -> None:
    """Refuse before the work what would be refused after it."""
    if recipe.out.exists():
        raise SortimentError(f"{recipe.out} is there already: a release is never overwritten")
    Manifest(
        name=recipe.name,
        version=recipe.version,
        created="",
        architecture="",
        config={},
        taxonomy_name="",
        taxonomy_version="",
        categories=None,
        labels=None,
        metrics={},
        files={},
    )


def _fingerprint(recipe: Recipe, system: System, *splits: SplitOnDisk) -> str:
    """Hash of all that decides the weights: settings, encoder, texts and labels."""
    settings: dict[str, Any] = asdict(recipe)
    for name in _OTHERWISE:
        del settings[name]
    del settings["train"]["checkpoint_s"], settings["tensorboard"]
    parts = [settings, dict(system.identity()), [split.digest for split in splits]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _silent(line: str) -> None:
    """For all processes but the main one."""


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.laps[stage] = now - self._last
        self._last = now
