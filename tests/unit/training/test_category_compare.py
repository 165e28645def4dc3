from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import SortimentError
from tests.tiny_encoder import save_tiny_bert
from training.category_compare import (
    CategoryRow,
    CategoryTable,
    compare_categories,
    load_category_table,
)
from training.compare_cli import compare_command
from training.evaluate import evaluate
from training.recipe import DhpcSettings
from training.table_rows import Asked

TABLE = "dhpc-amazon"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoder")
    encoder = save_tiny_bert(folder / "encoder")
    return [
        f"system.encoder={encoder}",
        "system.max_tokens=24",
        "system.head_width=8",
        "system.embedding=4",
        "train.epochs=2",
        "train.batch_size=32",
        f"cache={folder / 'cache'}",
        "device=cpu",
    ]


def test_rows_beside_the_papers(data: Path, settings: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = ["dnn", "plain", "bootstrap-0.9-0", "prune-2", "shared", "plain-titles"]
    said: list[str] = []
    asked = Asked(
        table=TABLE, data=data, out=out, settings=settings, recipe="dhpc-amazon-cpu", rows=rows
    )
    found = compare_categories(asked, said.append)
    assert list(found.results) == rows
    for key in ("dnn", "plain"):
        measured = evaluate(out / "rows" / key, data, split="test", dtype="float32")
        ours = found.results[key].measures
        for name in ("category_accuracy", "department_accuracy", "coverage", "category_macro_f1"):
            assert ours[name] == pytest.approx(measured[name], abs=1e-9), (key, name)
    plain, pruned = (found.results[key].measures for key in ("plain", "prune-2"))
    assert pruned["body_parameters"] < plain["body_parameters"]

    written = json.loads((out / "data-dhpc-amazon.json").read_text())
    assert written["systems"]["plain"] == dict(plain)
    assert written["gains_in_points"]["bootstrap-0.9-0"]["over"] == "plain"
    assert written["paper_gains_in_points"]["bootstrap-0.9-0"] == {"department": 1.48}
    page = (out / "data-dhpc-amazon.md").read_text()
    for part in ("PruneBERT, first 2 layers", "+1.48", "-1.20", "rows=dnn,plain", "± "):
        assert part in page
    # This recipe's classifiers share an encoder anyway: no effect is claimed.
    assert written["systems"]["shared"]["category_accuracy"] == plain["category_accuracy"]
    assert "shared" not in written["gains_in_points"]
    (line, *_) = [each for each in page.splitlines() if "one encoder for all" in each]
    assert line.endswith("|  |  |  | the same system |")
    assert "cache=" not in page
    assert "acts on the heads alone" in page
    assert (out / "data-dhpc-amazon-coverage.png").stat().st_size > 1000
    assert "data:image/png;base64," in (out / "data-dhpc-amazon.html").read_text()

    arguments = [TABLE, f"data={data}", f"out={out}", "recipe=dhpc-amazon-cpu", "rows=plain"]
    kept = out / "rows" / "plain.test.npz"
    before = kept.stat()
    again = CliRunner().invoke(compare_command, [*arguments, *settings])
    assert again.exit_code == 0, again.output
    assert "kept from before" in again.output
    # What was measured is not written again: an interruption cannot spoil it.
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # What was measured before stays on the page.
    assert (out / "data-dhpc-amazon.md").read_text().count("PruneBERT") == page.count("PruneBERT")
    # The command is that of all rows that are shown.
    (command,) = [each for each in page.splitlines() if each.startswith("sortiment-train")]
    assert set(command.partition("rows=")[2].split()[0].split(",")) == set(rows)
    assert f"\n{command}\n" in (out / "data-dhpc-amazon.md").read_text()
    assert json.loads((out / "data-dhpc-amazon.json").read_text())["systems"] == written["systems"]
    # A row that other settings made does not come on their page.
    other = CliRunner().invoke(
        compare_command,
        [*arguments[:-1], "rows=max", *settings, "seed=9"],
    )
    assert other.exit_code == 0, other.output
    assert set(json.loads((out / "data-dhpc-amazon.json").read_text())["systems"]) == {"max"}
    refused = CliRunner().invoke(compare_command, [*arguments, "categories=x"])
    assert refused.exit_code == 2


def test_a_row_stands_on_another(data: Path) -> None:
    table = load_category_table(TABLE)
    asked = Asked(table=TABLE, data=data, out=Path("o"), recipe="dhpc-amazon-cpu")

    def made(key: str) -> tuple[DhpcSettings, int]:
        recipe = table.recipe_of(table.row(key), asked)
        assert isinstance(recipe.system, DhpcSettings)
        return recipe.system, recipe.train.epochs

    plain, epochs = made("plain")
    assert plain.department.bootstrap == plain.leaf.temperature == 1
    assert plain.leaf.negatives == 0
    warm, longer = made("temperature-0.9")
    assert (warm.leaf.temperature, warm.leaf.negatives) == (0.9, 0)
    assert longer == round(1.2 * epochs)
    assert made("dnn-titles")[0].body == "pooled"
    with pytest.raises(ValueError, match="no row before it"):
        CategoryTable(
            kind="categories",
            about="",
            recipe="",
            rows=(CategoryRow(key="a", name="", base="b"),),
        )


def test_epochs_that_are_asked_for_of_a_row_are_its_epochs(data: Path) -> None:
    table = load_category_table(TABLE)
    settings = ["train.epochs=50", "plain:train.epochs=12"]
    asked = Asked(table=TABLE, data=data, out=Path("o"), settings=settings)
    epochs = {key: table.recipe_of(table.row(key), asked).train.epochs for key in ("plain", "dhpc")}
    assert epochs == {"plain": 12, "dhpc": 50}


def test_every_row_has_a_recipe(data: Path) -> None:
    table = load_category_table(TABLE)
    asked = Asked(table=TABLE, data=data, out=Path("o"))
    known = {row.key for row in table.rows}
    for row in table.rows:
        made = table.recipe_of(row, asked)
        assert made.out == Path("o/rows") / row.key
        assert row.against is None or row.against in known


def test_what_cannot_be_compared(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(table=TABLE, data=data, out=tmp_path)
    with pytest.raises(SortimentError, match="rows=bert: none of dnn"):
        compare_categories(replace(asked, rows=["bert"]))
    with pytest.raises(SortimentError, match="a table of parts, not of categories"):
        load_category_table("flagship")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SortimentError, match="for one process"):
        compare_categories(asked)
