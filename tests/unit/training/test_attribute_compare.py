from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import torch

from models.errors import SortimentError
from models.loading import load_predictor
from models.release import read_release
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_flagship import tiny_flagship
from training.attribute_compare import compare_attributes
from training.attribute_table import load_attribute_table
from training.data import DataSet
from training.evaluate import evaluate
from training.table_rows import Asked

TABLE = "ave-label-masking"
ROWS = ["bert", "leaf", "top", "masking"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    encoder = save_tiny_bert(folder / "encoder", hidden=32)
    path = folder / "tiny.yaml"
    path.write_text(
        "base: ave-label-masking-cpu\n"
        f"system: {{encoder: {encoder}, max_tokens: 24, cls_layers: 3}}\n"
        "train: {epochs: 2, min_steps: 0, batch_size: 16}\n"
        f"cache: {folder / 'cache'}\n"
        "device: cpu\n"
    )
    return path


def test_a_whole_table(data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flagship = tiny_flagship(tmp_path / "flagship", DataSet(data).taxonomy)
    said: list[str] = []
    asked = Asked(table=TABLE, data=data, out=out, recipe=str(recipe), hardware="a small machine")
    found = compare_attributes(asked, categories=str(flagship.directory), say=said.append)
    assert list(found.measures) == [*ROWS, "masking-predicted"]
    measured = evaluate(out / "rows" / "masking", data, split="test")
    masking = found.measures["masking"]
    for name in ("micro_f1", "micro_precision", "micro_recall"):
        assert masking[name] == pytest.approx(measured[f"attribute_{name}_true_category"])

    written = json.loads((out / "data-ave-label-masking.json").read_text())
    assert written["hardware"] == "a small machine"
    assert "torch" in written["versions"]
    counts = [sum(1 for _ in DataSet(data).products(split)) for split in ("train", "test")]
    assert [written["trained"], written["products"]] == counts
    systems = written["systems"]
    assert systems["bert"]["attribute_micro_f1_true_category"] == found.measures["bert"]["micro_f1"]
    assert "attribute_micro_f1" in systems["masking-predicted"]
    # A small shop's labels are all rare; groups without labels have no gain.
    bert = found.measures["bert"]
    assert written["gains"] == {
        "Rare": {
            kind: pytest.approx(100 * (masking[f"Rare_{kind}"] - bert[f"Rare_{kind}"]))
            for kind in ("micro_f1", "macro_f1_of_means", "macro_f1")
        }
    }
    assert written["gains_of_all_labels"]["macro_f1"] == pytest.approx(
        100 * (masking["macro_f1"] - bert["macro_f1"])
    )
    assert written["paper"]["groups"]["Rare"] == [5992, 53.85, 33.2, 33.19, 26.97]
    page = (out / "data-ave-label-masking.md").read_text()
    assert "cache=" not in page
    for part in (
        "sortiment-train compare",
        "a small machine, 20",
        "XR-Transformer",
        "not run",
        "84.47",
        "in every row but “BERT with label masking, predicted category”.",
        "+33.20",
    ):
        assert part in page
    for plot in ("f1", "gains"):
        assert (out / f"data-ave-label-masking-{plot}.png").stat().st_size > 1000
        assert f"(data-ave-label-masking-{plot}.png)" in page
    html = (out / "data-ave-label-masking.html").read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "BERT with label masking" in html

    # What another system says fills a row, and a perfect one scores so.
    answers = out / "xr-linear.jsonl"
    answers.write_bytes(
        b"".join(
            orjson.dumps(
                {
                    "product_id": item.product.product_id,
                    "attributes": [[*label.split("="), 0.9] for label in item.label_ids],
                }
            )
            + b"\n"
            for item in DataSet(data).products("test")
        )
    )
    filled = compare_attributes(replace(asked, rows=["masking"]), against=[answers])
    assert filled.measures["xr-linear"]["micro_f1"] == 1
    assert "against=xr-linear.jsonl" in filled.command
    with pytest.raises(SortimentError, match="against=masking: none of xr-linear"):
        compare_attributes(asked, against=[out / "masking.jsonl"])
    with pytest.raises(SortimentError, match="against: xr-linear stands there twice"):
        compare_attributes(asked, against=[answers, out / "few" / "xr-linear.jsonl.gz"])

    # A second time nothing is trained, and the figures are the same.
    one = replace(asked, rows=["masking"])
    again = compare_attributes(one, say=said.append)
    assert any(line.startswith("kept from before") for line in said)
    assert again.measures["masking"] == masking
    with pytest.raises(SortimentError, match="made by other settings"):
        compare_attributes(replace(asked, rows=["bert"], settings=["seed=9"]))
    with pytest.raises(SortimentError, match="no category model"):
        compare_attributes(one, categories=str(out / "rows" / "masking"))
    release = read_release(out / "rows" / "leaf")
    assert load_predictor(release, torch.device("cpu"), "float32").category is None


def test_what_cannot_be_compared(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SortimentError, match="a table of parts, not of attributes"):
        load_attribute_table("flagship")
    with pytest.raises(SortimentError, match="rows=xr-transformer: none of bert"):
        compare_attributes(Asked(table=TABLE, data=data, out=tmp_path, rows=["xr-transformer"]))
    with pytest.raises(SortimentError, match=r"categories=gone is for masking, which is not among"):
        compare_attributes(
            Asked(table=TABLE, data=data, out=tmp_path, rows=["bert"]), categories="gone"
        )


def test_several_processes_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SortimentError, match="for one process"):
        compare_attributes(Asked(table=TABLE, data=data, out=tmp_path))
