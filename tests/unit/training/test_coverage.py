from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from models.noop import noop_release
from tests.releases import TAXONOMY, reseal
from training.abstention import CALIBRATION_FILE, Abstention, DepartmentThreshold
from training.coverage import Kept, _verdict, coverage
from training.coverage_cli import coverage_command
from training.metrics import share_interval


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Answers boots, sneakers, bags in turn, all with the same score."""
    return noop_release(tmp_path / "release", TAXONOMY).directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    categories = ["boots", "bags", "sneakers", "boots", "bags", "hats"]
    lines = [
        {"product_id": str(row), "title": f"Product {row}", "category": category}
        for row, category in enumerate(categories)
    ]
    (directory / "test.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, lines))))
    return directory


def say(release: Path, overall: float) -> None:
    said = Abstention(
        0.75,
        "department",
        overall,
        {
            "shoes": DepartmentThreshold(0.0, True, 300, 0.8),
            "bags": DepartmentThreshold(0.0, False, 12, 0.7, 9),
        },
    )
    (release / CALIBRATION_FILE).write_bytes(said.to_json())
    reseal(release)


def test_a_release_that_says_what_its_thresholds_are(release: Path, data: Path) -> None:
    say(release, 1.0)
    found = coverage(release, data)
    assert found.target == 0.75
    assert found.category_accuracy == pytest.approx(2 / 6)
    assert found.served.assigned == 6
    assert found.served.interval == share_interval(np.arange(6) < 2, np.arange(6))
    assert found.one_threshold is not None
    assert found.one_threshold.assigned < 6
    by_name = {each.name: each for each in found.departments}
    # Of the three answers each comes twice: shoes are boots and sneakers.
    assert by_name["Shoes"].kept.products == 4
    assert by_name["Shoes"].own is True
    assert by_name["Bags"].own is False
    assert by_name["Bags"].valid_products == 12
    assert found.shared is not None
    assert found.shared.products == 2
    assert found.best_coverage <= 1
    assert coverage(release, data, target=0.2).best_coverage == 1


def test_products_of_one_text_make_the_interval_wider(release: Path, data: Path) -> None:
    path = data / "test.jsonl.gz"
    lines = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for line in lines:
        line["title"] = "Product"
    path.write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, lines))))
    found = coverage(release, data)
    assert found.served.interval == share_interval(np.arange(6) < 2, np.zeros(6, dtype=np.int64))
    shoes = next(each for each in found.departments if each.name == "Shoes")
    assert shoes.kept.interval[1] - shoes.kept.interval[0] > 0.75


def test_an_older_release_is_measured_too(release: Path, data: Path) -> None:
    found = coverage(release, data)
    assert found.target == 0.9
    assert found.one_threshold is None
    assert {each.own for each in found.departments} == {None}


@pytest.mark.parametrize(
    ("hits", "assigned", "products", "verdict"),
    [
        (90, 100, 120, "kept"),
        (70, 100, 120, "below"),
        (1000, 1000, 1200, "above"),
        (1000, 1000, 1000, "above, all assigned"),
        (0, 0, 10, "nothing assigned"),
    ],
)
def test_verdicts(hits: int, assigned: int, products: int, verdict: str) -> None:
    texts = np.arange(products)
    assert _verdict(Kept.of(texts < hits, texts < assigned, texts), 0.9) == verdict


def test_the_page(
    release: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(release, 0.0)
    out = tmp_path / "out"
    # Its files are named after the folder, however that is given.
    monkeypatch.chdir(data)
    given = ["--release", release, "--data", ".", "--out", out, "--about", "Hardware: an abacus"]
    done = CliRunner().invoke(coverage_command, list(map(str, given)))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == [
        "shop-coverage-departments.png",
        "shop-coverage.html",
        "shop-coverage.json",
        "shop-coverage.md",
        "shop-coverage.png",
    ]
    page = (out / "shop-coverage.md").read_text()
    assert "Hardware: an abacus" in page
    assert "--data shop --split test --out DIR" in page
    assert "One threshold for all products: 33.33 %" in page
    assert "\nAs served: " in page
    assert "| Bags | 12 | 9 | shared |" in page
    figures = orjson.loads((out / "shop-coverage.json").read_bytes())
    assert figures["served"]["accuracy"] == pytest.approx(2 / 6)
    assert str(tmp_path) not in page
