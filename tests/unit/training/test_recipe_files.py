from __future__ import annotations

from pathlib import Path

import pytest

from training.recipe import (
    AveBertSettings,
    ChangeSettings,
    DhpcSettings,
    FlagshipSettings,
    Strategy,
)
from training.recipe_files import RecipeError, load_recipe, packaged_recipes

GIVEN = ("data=shop", "out=release")


@pytest.mark.parametrize("name", sorted(packaged_recipes()))
def test_packaged_recipes_are_whole_and_say_what_they_are(name: str) -> None:
    recipe = load_recipe(name, GIVEN)
    assert recipe.data == Path("shop")
    assert 20 < len(packaged_recipes()[name]) < 120


def test_table_3_of_the_label_masking_paper() -> None:
    recipe = load_recipe("ave-label-masking", GIVEN)
    system, loop = recipe.system, recipe.train
    assert isinstance(system, AveBertSettings)
    assert (system.learning_rate, system.weight_decay, system.dropout) == (1e-4, 0, 0.1)
    assert (system.max_tokens, system.cls_layers, system.masking) == (512, 5, True)
    assert (loop.epochs, loop.batch_size, loop.warmup, loop.patience) == (5, 64, 0.1, None)
    assert loop.average_from is not None


def test_settings_of_ones_own_come_last() -> None:
    given = ("system.rates.heads=1e-4", "train.epochs=3", "version=2026-01-02", "limit=null")
    recipe = load_recipe("demo", (*GIVEN, *given))
    assert isinstance(recipe.system, FlagshipSettings)
    assert recipe.system.rates.heads == 1e-4
    assert recipe.system.rates.bag == load_flagship().rates.bag
    assert (recipe.train.epochs, recipe.train.batch_size) == (3, 128)
    assert (recipe.version, recipe.limit) == ("2026-01-02", None)


def load_flagship() -> FlagshipSettings:
    system = load_recipe("flagship", GIVEN).system
    assert isinstance(system, FlagshipSettings)
    return system


def problems(recipe: str | Path, *settings: str) -> list[str]:
    with pytest.raises(RecipeError) as refused:
        load_recipe(str(recipe), settings)
    return list(refused.value.problems)


def test_every_problem_is_told_at_once_with_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: flagship\ntrian: {}\nsystem: {bag_dmi: 3, dropout: 1.5}\ntrain: {epochs: none}\n"
    )
    found = problems(path, "train.batch_size=0", "data=x", "seed")
    assert len(found) == 7
    for part in (
        "command line: 'seed' is not key=value",
        f"{path}: system.bag_dmi is unknown; did you mean bag_dim?",
        f"{path}: system.dropout: ",
        f"{path}: train.epochs: ",
        "command line: train.batch_size: ",
        f"{path}: trian is unknown; did you mean train?",
        f"{path}: out is missing",
    ):
        assert any(each.startswith(part) for each in found), part


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("whole_members=4", "set whole_members to at most 3"),
        ("whole_bag=false", "set whole_members=0"),
        ("views=one", "set whole_bag=false and whole_members=0"),
    ],
)
def test_members_and_bags_that_do_not_go_together(setting: str, said: str) -> None:
    given = (*GIVEN, "system.whole_members=2", f"system.{setting}")
    (problem,) = problems("flagship-wide", *given)
    assert problem.endswith(said)
    told = [f"system.{each.replace(' to at most ', '=')}" for each in said[4:].split(" and ")]
    load_recipe("flagship-wide", (*given, *told))


def test_a_recipe_may_stand_on_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("base: flagship\nname: mine\ntrain: {epochs: 2}\n")
    (tmp_path / "top.yaml").write_text("base: base.yaml\ntrain: {patience: null}\n")
    recipe = load_recipe(str(tmp_path / "top.yaml"), GIVEN)
    assert (recipe.name, recipe.train.epochs, recipe.train.patience) == ("mine", 2, None)


def test_a_recipe_that_stands_on_itself(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"base: {path}\n")
    assert "stands on itself" in problems(path)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- a", "a recipe is a mapping"),
        ("name: a\nname: b\n", "name is there twice"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert message in problems(path)[0]


def test_a_name_that_is_nearly_right() -> None:
    assert "did you mean flagship?" in problems("flagshp")[0]
    assert "'x' is none of" in problems("flagship", "system.kind=x", *GIVEN)[0]
    assert "not YAML" in problems("flagship", "name=[", *GIVEN)[0]


@pytest.mark.parametrize("name", ["refresh", "refresh-wide"])
def test_the_packaged_recipes_are_a_flagships(name: str) -> None:
    assert load_recipe(name, ["data=.", "out=."]).system.kind == "flagship"


def test_a_refresh_of_dhpc_moves_no_release_to_strategies_that_it_was_trained_without() -> None:
    recipe = load_recipe("refresh-dhpc-amazon", ["data=.", "out=."])
    assert isinstance(recipe.system, DhpcSettings)
    assert (recipe.system.department, recipe.system.leaf) == (Strategy(), Strategy())
    assert recipe.changes == ChangeSettings()
