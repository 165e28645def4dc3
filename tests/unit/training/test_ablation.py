from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import SortimentError
from tests.tiny_shop import write_shop
from training.ablation import NAMES, ablate
from training.ablation_page import write_page
from training.data import DataSet
from training.evaluate import evaluate
from training.table_rows import Asked

FAST = [
    "system.bag_dim=8",
    "system.category_dim=2",
    "system.members=2",
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
    asked = Asked(
        table="flagship",
        data=data,
        out=out,
        settings=given,
        rows=["whole", "flat"],
        notes="## Said of it\n\n**Small**, <b>it</b> says.\n",
    )
    found = ablate(asked, against=against)
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
    for part in (
        "compare flagship",
        "rows=whole,flat against=other.jsonl",
        "without hidden layer",
        "By source",
    ):
        assert part in page
    assert "cache=" not in page
    assert "## Wanted" not in page
    assert page.endswith(asked.notes)
    assert written["notes"] == asked.notes
    html = (out / "data-flagship.html").read_text()
    assert "<h2>Said of it</h2>" in html
    assert "<strong>Small</strong>, &lt;b&gt;it&lt;/b&gt; says." in html

    least = tuple(found.measures["whole"][name] for name in NAMES)
    table = replace(found.table, wanted={"data": (*least[:2], least[2] + 0.02, 0.0)})
    write_page(replace(found, table=table), out)
    page = (out / "data-flagship.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| reached"))
    assert line.count("missing") == 1
    assert f"| {least[2]:.4f}, 2.00 points missing |" in line
    wanted = json.loads((out / "data-flagship.json").read_text())["wanted"]
    assert wanted == dict(zip(NAMES, table.wanted["data"], strict=True))


def test_what_cannot_be_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(table="flagship", data=data, out=tmp_path)
    with pytest.raises(SortimentError, match="rows=big: none of whole"):
        ablate(replace(asked, rows=["big"]))
    with pytest.raises(SortimentError, match="differences are to whole"):
        ablate(replace(asked, rows=["flat"]))
    # Before anything is trained.
    other = tmp_path / "other.jsonl"
    other.write_text('{"product_id": "1", "category": "wear/shoe", "attributes": []}')
    with pytest.raises(SortimentError, match="lacks 40 products"):
        ablate(asked, against=other)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SortimentError, match="for one process"):
        ablate(asked)
