from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import SortimentError
from tests.tiny_shop import write_shop
from training.ablation import NAMES, ablate
from training.compare import compare_command
from training.data import DataSet
from training.evaluate import evaluate

FAST = [
    "system.bag_dim=8",
    "system.category_dim=2",
    "train.epochs=6",
    "train.batch_size=32",
    "train.min_steps=0",
    "progress=false",
    "device=cpu",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "data")


def test_rows_beside_another_system(data: Path, tmp_path: Path) -> None:
    against = tmp_path / "other.jsonl"
    lines = [
        {
            "product_id": item.product.product_id,
            "category": "wear/shoe",
            "attributes": [["Color", "red"], ["Color", "unheard of"]],
        }
        for item in DataSet(data).products("test")
    ]
    against.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    given = [*FAST, f"cache={tmp_path / 'cache'}"]
    found = ablate(
        "flagship", given, data_dir=data, out=out, rows=["whole", "flat"], against=against
    )
    assert list(found.measures) == ["whole", "flat", "other.jsonl"]
    measured = evaluate(out / "rows" / "whole", data, split="test")
    for name in (*NAMES[:2], NAMES[2]):
        assert found.measures["whole"][name] == pytest.approx(measured[name])
    assert found.measures["whole"]["category_accuracy"] > 0.9
    gain = found.differences["other.jsonl"]["category_accuracy"]
    other = found.measures["other.jsonl"]["category_accuracy"]
    assert gain.figure == found.measures["whole"]["category_accuracy"] - other
    assert 0 < gain.low < gain.figure < gain.high
    assert set(found.by_source) == {"wear", "home"}
    written = json.loads((out / "data-flagship.json").read_text())
    assert written["systems"] == found.measures
    page = (out / "data-flagship.md").read_text()
    for part in ("compare flagship", "rows=whole,flat", "without hidden layer", "By source"):
        assert part in page
    assert "cache=" not in page


def test_what_cannot_be_measured(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SortimentError, match="rows=big: none of this table's"):
        ablate("flagship", [], data_dir=data, out=tmp_path, rows=["big"])
    with pytest.raises(SortimentError, match="differences are to whole"):
        ablate("flagship", [], data_dir=data, out=tmp_path, rows=["flat"])
    assert CliRunner().invoke(compare_command, ["flagship", f"data={data}"]).exit_code == 2
