"""Plots of an evaluation, as PNG files. They need no display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.metrics import Reliability

__all__ = ["plain", "plot_accuracy_coverage", "plot_departments", "plot_reliability"]

_MOST_BARS = 30
_COLOUR = "#31688e"
# A curve over 100,000 products looks the same through so many points.
_MOST_POINTS = 2_000


def plot_accuracy_coverage(
    path: Path,
    coverage: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    assigned: tuple[float, float],
) -> None:
    """Accuracy of the best-scored products against their share (dhpc-amazon's comparison).

    Args:
        coverage, accuracy: [S], as ``metrics.accuracy_coverage``.
        assigned: coverage and accuracy at the release's thresholds, marked.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    points = np.unique(np.linspace(0, len(coverage) - 1, _MOST_POINTS).astype(int))
    if len(coverage):
        axes.plot(coverage[points], accuracy[points], color=_COLOUR)
    axes.plot(*assigned, "o", color=_COLOUR, label="assigned at the release's thresholds")
    axes.set(xlabel="coverage", ylabel="category accuracy", xlim=(0, 1.02), ylim=(None, 1.02))
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_departments(path: Path, departments: Mapping[str, tuple[int, float]]) -> None:
    """Category accuracy by department, of the 30 with most products.

    Args:
        departments: number of products and accuracy, by name.
    """
    shown = sorted(departments.items(), key=lambda item: -item[1][0])[:_MOST_BARS][::-1]
    figure = Figure(figsize=(7, 1.5 + 0.28 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{plain(name)} ({count:,})" for name, (count, _) in shown]
    axes.barh(names, [share for _, (_, share) in shown], color=_COLOUR)
    axes.set(xlabel="category accuracy", xlim=(0, 1))
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120)


def plot_reliability(path: Path, reliability: Reliability) -> None:
    """Accuracy by score, with the number of products in each bin."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    filled = reliability.counts > 0
    axes.plot(reliability.mean_scores[filled], reliability.accuracies[filled], "o-", color=_COLOUR)
    axes.set(ylabel="category accuracy", ylim=(0, 1.02))
    axes.set_title(f"calibration error {reliability.calibration_error:.3f}")
    num_bins = len(reliability.counts)
    edges = np.arange(num_bins) / num_bins
    counts.bar(edges, reliability.counts, width=0.9 / num_bins, align="edge", color=_COLOUR)
    counts.set(xlabel="score", ylabel="products", xlim=(0, 1))
    for one in (axes, counts):
        one.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plain(name: str) -> str:
    """A name without what matplotlib's own font lacks or takes for mathematics."""
    shown = "".join(one if ord(one) < 0x250 and one != "$" else "?" for one in name)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
