from pathlib import Path

import numpy as np
import pytest

from training.metrics import accuracy_coverage, reliability
from training.plots import plot_accuracy_coverage, plot_departments, plot_reliability

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("num_products", [1, 5_000])
def test_plots_are_written(tmp_path: Path, num_products: int) -> None:
    random = np.random.default_rng(1)
    scores = random.random(num_products)
    correct = random.random(num_products) < scores
    plot_accuracy_coverage(tmp_path / "a.png", *accuracy_coverage(scores, correct), (0.5, 0.9))
    plot_reliability(tmp_path / "b.png", reliability(scores, correct))
    # Names that matplotlib's font lacks, or would read as a formula, must not fail or warn.
    names = {"$x_$": (2, 0.5), "ウィメンズ": (3, 1.0), "n" * 200: (1, 0.0)}
    many = {f"department {number}": (number, 0.5) for number in range(40)}
    plot_departments(tmp_path / "c.png", names | many)
    for name in ("a.png", "b.png", "c.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
