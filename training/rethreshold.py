"""``sortiment-train rethreshold``: a release with another promise, and nothing trained.

The share that people can review changes more often than the catalog does. The thresholds of
categories come from the release's own answers to valid, as when it was trained; all else is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from tqdm import tqdm

from models.errors import SortimentError
from models.loading import load_predictor
from models.release import Release, read_release
from models.release_documents import OWN_FILES, WEIGHTS
from models.release_store import fetch_release, refuse_if_there
from models.release_writing import write_release
from training import metrics
from training.abstention import CALIBRATION_FILE, Promise, fit_abstention, read_abstention
from training.data import DataError, DataSet
from training.options import (
    data_option,
    device_option,
    new_release_option,
    release_option,
    version_option,
)
from training.predictions import predict_products
from training.processes import Processes, one_process
from training.recipe import FETCHED_RELEASES, By
from training.same_texts import text_keys
from training.successor import refuse_same, version_after

__all__ = ["rethreshold", "rethreshold_command"]


def rethreshold(
    release: Release,
    data: DataSet,
    out: Path,
    version: str,
    promise: Promise,
    *,
    device: torch.device | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Release:
    """Write the release anew with category thresholds that keep ``promise`` on valid.

    Args:
        out: folder of the new release, not there yet. version: its version.
        device: None: the CPU.
        advance: called with the number of valid products that are done.

    Returns:
        The new release, read back.

    Raises:
        ReleaseError, ModelError: the release cannot be used, or ``out`` is there. SortimentError:
            it has no category model. DataError: nothing to set thresholds on.
    """
    refuse_same(release, release.name, version)
    refuse_if_there(out)
    device = device or torch.device("cpu")
    predictor = load_predictor(release, device, "auto")
    if release.categories is None or predictor.category is None:
        raise SortimentError(f"release {release.id} has no category model: nothing is assigned")
    # As in training: a category that is no leaf is a mistake of the data. A leaf that the release
    # does not know yet is not: its products come, and every answer to them is wrong.
    leaves = frozenset(data.taxonomy.leaves)
    items = [item for item in data.products("valid") if item.category in leaves]
    if not items:
        raise DataError(
            f"{data.directory} has no products in valid whose category is a leaf of its taxonomy: "
            "nothing to set thresholds on"
        )
    # Labels are no matter here, and take most of the time.
    found = predict_products(
        release, replace(predictor, attribute=None), items, device, advance=advance
    )
    row_of = release.categories.row_of
    rows = np.array([row_of[each] for each in found.categories or []], dtype=np.int64)
    true = np.array([row_of.get(item.category, -1) for item in items], dtype=np.int64)
    texts = text_keys(item.product for item in items)
    departments = [release.taxonomy.department_of(leaf) for leaf in release.categories.ids]
    abstention = fit_abstention(found.scores, rows, true, departments, texts, promise)
    thresholds = abstention.of_leaves(departments)
    right = rows == true
    coverage, accuracy = metrics.accuracy_where(right, found.scores >= thresholds[rows])
    return write_release(
        out,
        name=release.name,
        version=version,
        architecture=release.architecture,
        config=release.config,
        taxonomy=release.taxonomy,
        categories=release.categories,
        labels=release.labels,
        category_thresholds=thresholds,
        label_thresholds=release.label_thresholds,
        weights=release.directory / WEIGHTS if WEIGHTS in release.files else {},
        files={
            path: release.directory / path
            for path in release.files
            if path not in OWN_FILES and path != CALIBRATION_FILE
        }
        | {CALIBRATION_FILE: abstention.to_json()},
        examples=release.examples,
        metrics={
            **release.metrics,
            "coverage": coverage,
            "assigned_accuracy": accuracy,
            # The other figures are of the products that training measured.
            "thresholds_products": float(len(items)),
        },
    )


@click.command("rethreshold")
@release_option
@data_option
@new_release_option
@version_option
@click.option("--target", type=click.FloatRange(0, 1), help="Accuracy that what is assigned has.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    help="That a threshold reaches it; 0.5: as often as not.",
)
@click.option(
    "--by", type=click.Choice(["department", "overall"]), help="Whose threshold it is to be."
)
@device_option
def rethreshold_command(
    address: str,
    data: Path,
    out: Path,
    version: str | None,
    target: float | None,
    confidence: float | None,
    by: str | None,
    device: str,
) -> None:
    """Set the thresholds of categories anew on the data set's valid split; nothing is trained.

    What is not given stays as the release has it.
    """
    one_process("rethreshold", "start it without torchrun")
    old = read_release(fetch_release(address, FETCHED_RELEASES))
    chosen = version_after(old, version)
    promise = _promise(old, target, confidence, cast(By | None, by))
    with tqdm(desc="valid", unit="product", disable=not sys.stderr.isatty()) as bar:
        new = rethreshold(
            old,
            DataSet(data),
            out,
            chosen,
            promise,
            device=Processes(device).device,
            advance=bar.update,
        )
    if new.metrics["coverage"] == 0:
        click.echo(promise.unkept(new.metrics["thresholds_products"]))
    click.echo(
        f"on valid, by which they were set, {new.metrics['coverage']:.1%} of the products are "
        f"assigned, {new.metrics['assigned_accuracy']:.1%} of these right"
    )
    click.echo(f"release {new.id}: {new.directory}")


def _promise(
    old: Release, target: float | None, confidence: float | None, by: By | None
) -> Promise:
    said = read_abstention(old)
    if said is not None:
        return Promise(
            said.target if target is None else target,
            said.by if by is None else by,
            said.confidence if confidence is None else confidence,
        )
    if target is None or confidence is None or by is None:
        raise SortimentError(
            f"release {old.id} does not say what its thresholds promise: give --target, "
            "--confidence and --by"
        )
    return Promise(target, by, confidence)
