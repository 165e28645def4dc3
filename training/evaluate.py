"""``sortiment-train evaluate``: a release measured on a data set, as it would be served."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
import orjson
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from models.loading import Dtype, load_predictor
from models.release import Release, read_release
from models.release_store import fetch_release
from models.taxonomy import Taxonomy
from training import metrics
from training.data import DataSet, LabelledProduct
from training.options import (
    data_option,
    device_option,
    limit_option,
    release_option,
    split_option,
)
from training.plots import plot_accuracy_coverage, plot_departments, plot_reliability
from training.predictions import Predictions, predict_products
from training.processes import Processes
from training.recipe import FETCHED_RELEASES

__all__ = ["evaluate", "evaluate_command"]


def evaluate(
    release_dir: Path,
    data_dir: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    device: torch.device | None = None,
    dtype: Dtype = "auto",
    plots: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a release on the labelled products of a split.

    Measures (each left out where the release has no such model):

    - ``category_accuracy``: top 1, products for review included; ``category_macro_f1``: over the
      categories that occur; ``department_accuracy``: the root of the tree is right.
    - ``coverage``: share of products that are ``assigned``; ``assigned_accuracy``: among those.
    - ``calibration_error``: of the best category's score.
    - ``attribute_micro_f1``, ``..._precision``, ``..._recall`` and ``attribute_macro_...``: over
      (product, label) pairs, masked by the predicted category, as served.
    - ``attribute_micro_f1_true_category`` and so on: masked by the true one, as the papers have it.
    - ``by_locale``: products, category accuracy and attribute micro F1; ``by_department``: products
      and category accuracy.

    True attributes that are not in the release's label space count as missed.

    Args:
        split: ``train``, ``valid`` or ``test``.
        limit: the first so many products of the split; None: all.
        device: None: the CPU.
        plots: folder for PNG files, made if it is not there; None: no plots.
        progress: show a bar on stderr.

    Raises:
        ReleaseError, ModelError: the release cannot be used. DataError, TaxonomyError: the data.
    """
    device = device or torch.device("cpu")
    release = read_release(release_dir)
    predictor = load_predictor(release, device, dtype)
    items = DataSet(data_dir).listed(split, limit)
    with tqdm(total=len(items), desc="evaluate", unit="product", disable=not progress) as bar:
        found = predict_products(release, predictor, items, device, advance=bar.update)
    result: dict[str, Any] = {
        "release": release.id,
        "manifest_sha256": release.manifest_sha256,
        "taxonomy_version": release.taxonomy.version,
        "data": data_dir.name,
        "split": split,
        "products": len(items),
        "seconds": round(found.seconds, 3),
        "products_per_s": round(len(items) / max(found.seconds, 1e-9), 1),
    }
    if found.categories is not None:
        result |= _categories(release, items, found, found.categories, plots)
    true_labels = [item.label_ids for item in items]
    for labels, suffix in ((found.labels, ""), (found.labels_of_true, "_true_category")):
        if labels is not None:
            measures = asdict(metrics.label_measures(true_labels, labels))
            result |= {f"attribute_{name}{suffix}": value for name, value in measures.items()}
    result["by_locale"] = _by_locale(items, found)
    return result


def _categories(
    release: Release,
    items: Sequence[LabelledProduct],
    found: Predictions,
    predicted: Sequence[str],
    plots: Path | None,
) -> dict[str, Any]:
    true = [item.category for item in items]
    correct = found.right(true)
    departments = _departments(release.taxonomy, true)
    coverage, assigned_accuracy = metrics.accuracy_where(correct, found.assigned)
    bins = metrics.reliability(found.scores, correct)
    by_department = metrics.share_by_group(departments, correct.tolist())
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        curve = metrics.accuracy_coverage(found.scores, correct)
        plot_accuracy_coverage(
            plots / "accuracy_coverage.png", *curve, (coverage, assigned_accuracy)
        )
        plot_departments(plots / "departments.png", by_department)
        plot_reliability(plots / "reliability.png", bins)
    return {
        "category_accuracy": metrics.accuracy(true, predicted),
        "category_macro_f1": metrics.macro_f1(true, predicted),
        "department_accuracy": metrics.accuracy(
            departments, _departments(release.taxonomy, predicted)
        ),
        "coverage": coverage,
        "assigned_accuracy": assigned_accuracy,
        "calibration_error": bins.calibration_error,
        "by_department": _shares(by_department),
    }


def _by_locale(items: Sequence[LabelledProduct], found: Predictions) -> dict[str, Any]:
    locales = [item.product.locale for item in items]
    by_locale: dict[str, Any] = {}
    for locale in sorted(set(locales)):
        rows = [row for row, each in enumerate(locales) if each == locale]
        measures: dict[str, Any] = {"products": len(rows)}
        if found.categories is not None:
            categories = found.categories
            measures["category_accuracy"] = metrics.accuracy(
                [items[row].category for row in rows], [categories[row] for row in rows]
            )
        labels = found.labels if found.labels is not None else found.labels_of_true
        if labels is not None:
            name = "attribute_micro_f1" + ("" if found.labels is not None else "_true_category")
            measures[name] = metrics.label_measures(
                [items[row].label_ids for row in rows], [labels[row] for row in rows]
            ).micro_f1
        by_locale[locale or "unknown"] = measures
    return by_locale


def _departments(taxonomy: Taxonomy, category_ids: Sequence[str]) -> list[str]:
    """Name of each category's root; a category that the taxonomy lacks is one of its own."""
    return [
        taxonomy.path(each)[0].name if each in taxonomy.categories else f"unknown: {each}"
        for each in category_ids
    ]


def _shares(groups: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    return {
        group: {"products": count, "category_accuracy": share}
        for group, (count, share) in groups.items()
    }


@click.command("evaluate")
@release_option
@data_option
@split_option
@limit_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for evaluation.json and plots.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the figures.",
)
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=FETCHED_RELEASES,
    show_default="~/.cache/sortiment/releases",
    help="Where releases from elsewhere are kept.",
)
def evaluate_command(
    address: str,
    data: Path,
    split: str,
    limit: int | None,
    out: Path | None,
    json_file: Path | None,
    device: str,
    dtype: str,
    cache_dir: Path,
) -> None:
    """Measure a release on labelled products, as it would be served."""
    result = evaluate(
        fetch_release(address, cache_dir),
        data,
        split=split,
        limit=limit,
        device=Processes(device).device,
        dtype=cast(Dtype, dtype),
        plots=out,
        progress=sys.stderr.isatty(),
    )
    for path in (json_file, None if out is None else out / "evaluation.json"):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    _show(result)


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    table = Table("measure", title=f"{result['release']} on {result['data']}/{result['split']}")
    table.add_column("value", justify="right")
    for name, value in result.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}" if value <= 1 else f"{value:,.1f}")
        elif isinstance(value, int):
            table.add_row(name, f"{value:,}")
    console.print(table)
    locales = Table("locale", title="by locale")
    names = list(dict.fromkeys(name for row in result["by_locale"].values() for name in row))
    for name in names:
        locales.add_column(name, justify="right")
    for locale, row in result["by_locale"].items():
        shown = [row.get(name, "") for name in names]
        locales.add_row(
            locale, *(f"{each:.4f}" if isinstance(each, float) else f"{each:,}" for each in shown)
        )
    console.print(locales)
