import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from models.errors import SortimentError
from models.noop import noop_release
from tests.releases import TAXONOMY
from training.data import DataError
from training.evaluate import evaluate, evaluate_command


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return noop_release(tmp_path / "release", TAXONOMY).directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    categories = ["boots", "bags", "sneakers", "boots", "bags", "hats"]
    lines = [
        {
            "product_id": str(row),
            "locale": "en" if row % 2 else "ja",
            "title": f"Product {row}",
            "category": category,
            "attributes": [{"name": "Size", "value": "36"}, {"name": "Fit", "value": "wide"}],
        }
        for row, category in enumerate(categories)
    ]
    (directory / "test.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, lines))))
    return directory


def test_measures(release: Path, data: Path) -> None:
    result = evaluate(release, data)
    # The noop model answers leaf (place * 1,000,003) mod 3: boots, sneakers, bags, boots, ...
    assert result["products"] == 6
    assert result["category_accuracy"] == pytest.approx(2 / 6)
    # boots: both found and nothing else is called boots; bags: 2 true, 2 called; others 0.
    assert result["category_macro_f1"] == pytest.approx((1 + 0 + 0 + 0) / 4)
    # Shoes, bags, ... of the predicted against those of the true; hats have no department.
    assert result["department_accuracy"] == pytest.approx(2 / 6)
    assert result["coverage"] == 1
    assert result["assigned_accuracy"] == result["category_accuracy"]
    assert result["by_locale"]["ja"]["products"] == 3
    assert result["by_locale"]["ja"]["category_accuracy"] == pytest.approx(1 / 3)
    assert result["by_department"]["Shoes"] == {
        "products": 3,
        "category_accuracy": pytest.approx(2 / 3),
    }
    # "Fit=wide" is in no label space: missed for each of the six products.
    assert result["attribute_micro_recall"] <= 0.5
    assert 0 < result["attribute_micro_f1_true_category"] < 1
    assert result["release"] == "noop/1"


def test_limit_takes_the_first_products(release: Path, data: Path) -> None:
    assert evaluate(release, data, limit=1)["category_accuracy"] == 1
    assert evaluate(release, data, limit=1)["products"] == 1


def test_a_split_that_is_missing_or_empty(release: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"needs one of valid\.jsonl"):
        evaluate(release, data, split="valid")
    (data / "valid.jsonl").touch()
    with pytest.raises(DataError, match="has no products in valid"):
        evaluate(release, data, split="valid")


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(evaluate_command, list(map(str, arguments)))


def test_command_prints_and_writes(release: Path, data: Path, tmp_path: Path) -> None:
    out, json_file = tmp_path / "out", tmp_path / "figures" / "e.json"
    done = run("--release", release, "--data", data, "--out", out, "--json", json_file)
    assert done.exit_code == 0, done.output
    assert "category_accuracy" in done.output
    assert "0.3333" in done.output
    assert sorted(path.name for path in out.iterdir()) == [
        "accuracy_coverage.png",
        "departments.png",
        "evaluation.json",
        "reliability.png",
    ]
    written = orjson.loads(json_file.read_bytes())
    assert written == orjson.loads((out / "evaluation.json").read_bytes())
    assert written["attribute_micro_f1"] == evaluate(release, data)["attribute_micro_f1"]


def test_command_refuses_a_device_that_there_is_not(release: Path, data: Path) -> None:
    done = run("--release", release, "--data", data, "--device", "abacus")
    assert isinstance(done.exception, SortimentError)
    assert "device=abacus" in str(done.exception)
