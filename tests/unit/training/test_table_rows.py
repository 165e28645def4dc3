from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import SortimentError
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import shop_recipe, small_flagship
from training.ablation_table import load_ablation_table
from training.recipe import FlagshipSettings, LoopSettings
from training.table_rows import Asked, is_trained, read_table, row_recipe, train_row


def test_every_table_says_its_kind() -> None:
    folder = Path("training/tables")
    kinds = {path.stem: read_table(path.stem)["kind"] for path in folder.glob("*.yaml")}
    assert kinds == {
        "ave-label-masking": "attributes",
        "dhpc-amazon": "categories",
        "flagship": "parts",
    }
    with pytest.raises(SortimentError, match="none of the tables: ave-label-masking, dhpc"):
        read_table("lsan")
    with pytest.raises(SortimentError, match="flagship is a table of parts, not of attributes"):
        read_table("flagship", "attributes")


@pytest.mark.parametrize("table", ["ave-label-masking", "dhpc-amazon", "flagship"])
def test_every_row_of_a_table_is_a_recipe(table: str) -> None:
    raw = read_table(table)
    asked = Asked(table=table, data=Path("d"), out=Path("o"))
    keys = [row["key"] for row in raw["rows"]]
    assert len(keys) == len(set(keys)) > 3
    for row in raw["rows"]:
        if not row.get("elsewhere"):
            recipe = row.get("recipe", raw["recipe"])
            row_recipe(asked, recipe, row["key"], row.get("settings", []))


def test_the_command_names_no_local_path() -> None:
    asked = Asked(
        table="flagship",
        data=Path("/home/me/data/market"),
        out=Path("/home/me/out"),
        settings=["seed=2", "cache=/home/me/cache", "system.encoder=/home/me/bert", "device=cpu"],
        rows=["whole", "flat"],
        split="valid",
        hardware="two cores",
    )
    assert asked.command("/home/me/mine.yaml", against="other.jsonl") == (
        "sortiment-train compare flagship data=market out=out recipe=mine.yaml "
        "rows=whole,flat split=valid against=other.jsonl seed=2 system.encoder=bert"
    )


def test_one_rows_settings_are_on_top_of_all() -> None:
    settings = ["seed=2", "flat:seed=4", "limit=9", "a-0.9:version=7", "flat:cache=c"]
    asked = Asked(table="flagship", data=Path("d"), out=Path("o"), settings=settings)
    flat = row_recipe(asked, "flagship", "flat", ["seed=3"])
    other = row_recipe(asked, "flagship", "a-0.9", ["seed=3"])
    assert (flat.seed, flat.version, other.seed, other.version) == (4, "1", 3, "7")
    assert asked.command("flagship").endswith("seed=2 flat:seed=4 limit=9 a-0.9:version=7")


@pytest.mark.parametrize("rows", [[], ["whole"]])
def test_what_is_no_setting_of_a_row(rows: list[str]) -> None:
    table = load_ablation_table("flagship")
    asked = Asked(
        table="flagship", data=Path("d"), out=Path("o"), rows=rows, settings=["flta:seed=4"]
    )
    with pytest.raises(SortimentError, match="flta:seed=4: flta is none of whole, "):
        asked.chosen(table.rows)
    for key in ("limit", "limit_seed"):
        with pytest.raises(SortimentError, match=f"flat:{key}=4: {key} is the same for every row"):
            replace(asked, settings=[f"flat:{key}=4"]).chosen(table.rows)
    found = replace(asked, settings=["flat:seed=4"]).chosen(table.rows)
    assert [row.key for row in found] == (rows or [row.key for row in table.rows])


def test_the_rows_settings_are_on_top() -> None:
    asked = Asked(table="flagship", data=Path("d"), out=Path("o"), settings=["seed=2", "limit=9"])
    made = row_recipe(asked, "flagship", "a-0.9", ["seed=3"])
    assert (made.seed, made.limit, made.name) == (3, 9, "flagship-a-0.9")
    assert made.out == Path("o/rows/a-0.9")


def test_a_row_knows_the_encoder_that_its_folder_held(data: Path, tmp_path: Path) -> None:
    encoder = save_tiny_bert(tmp_path / "bert")
    system = small_flagship(encoder)
    recipe = shop_recipe(data, tmp_path, system, LoopSettings(epochs=1, batch_size=64))
    recipe = replace(recipe, out=tmp_path / "rows" / "whole", device="cpu")
    train_row(recipe, lambda _line: None)
    assert is_trained(recipe)
    # The same encoder elsewhere, as on another machine.
    (tmp_path / "there").mkdir()
    moved = Path(shutil.copytree(encoder, tmp_path / "there" / "bert"))
    assert is_trained(replace(recipe, system=replace(system, encoder=str(moved))))
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert not is_trained(recipe)


def test_rows_whose_keys_have_dots_are_each_kept(data: Path, tmp_path: Path) -> None:
    system = FlagshipSettings(kind="flagship", encoder="none", hash_buckets=512, bag_dim=4)
    recipe = shop_recipe(data, tmp_path, system, LoopSettings(epochs=1, batch_size=64))
    recipe = replace(recipe, out=tmp_path / "out" / "rows" / "beta-0.9-0", device="cpu")
    other = replace(recipe, out=recipe.out.with_name("beta-0.9-1000"), seed=2)
    said: list[str] = []
    for each in (recipe, other, recipe, other):
        train_row(each, said.append)
    assert sum(line.startswith("kept from before") for line in said) == 2
    train_row(replace(recipe, about="told in other words"), said.append)
    assert said[-1].startswith("kept from before")
    # Rows of several folders may be put together.
    moved = tmp_path / "moved"
    recipe.out.parent.rename(moved)
    recipe = replace(recipe, out=moved / recipe.out.name)
    train_row(recipe, said.append)
    assert said[-1].startswith("kept from before")
    with pytest.raises(SortimentError, match="made by other settings"):
        train_row(replace(recipe, seed=3), said.append)
    copied = tmp_path / "elsewhere"
    shutil.copytree(data, copied)
    train_row(replace(recipe, data=copied), said.append)
    assert said[-1].startswith("kept from before")
    with (copied / "train.jsonl").open("wb") as file:
        file.write(
            gzip.decompress((copied / "train.jsonl.gz").read_bytes()).replace(b"red", b"blue")
        )
    (copied / "train.jsonl.gz").unlink()
    with pytest.raises(SortimentError, match="or of other data"):
        train_row(replace(recipe, data=copied), said.append)
