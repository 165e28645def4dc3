"""Refreshing releases of the two BERT papers' systems."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from models.dhpc import DhpcNet, body_features, dhpc_categories
from models.errors import SortimentError
from models.loading import load_predictor
from models.release import Release, read_release
from models.self_check import run_self_check
from tests.new_labels import labelled, write_changed_shop, write_lines
from tests.tiny_encoder import save_tiny_bert
from tests.trained_shop import shop_recipe, train_on_shop
from training.ave_bert_refresh import RefreshedAveBert
from training.carry_over import category_names
from training.cli import main
from training.data import DataSet
from training.dhpc_refresh import RefreshedDhpc
from training.gates import Gates
from training.processes import Processes
from training.recipe import AveBertSettings, DhpcSettings, LoopSettings, Recipe
from training.refresh import RefreshRefused, RefreshReport, refresh
from training.run import run
from training.system import Job

CPU = torch.device("cpu")
# The gates are for thousands of products: here one product is a point and more.
WIDE = Gates(overall=0.6, department=1.0, calibration=1.0, coverage=1.0, attributes=0.3)


Trained = Callable[..., tuple[Release, Recipe]]


def silent(_line: str) -> None:
    pass


@pytest.fixture
def gowns(tmp_path: Path) -> Path:
    lines = [labelled(n, "zeppelin", "wear/gown", "green") for n in range(80)]
    return write_lines(tmp_path / "new.jsonl", lines)


@pytest.fixture
def green_shoes(tmp_path: Path) -> Path:
    lines = [labelled(n, "shoe", "wear/shoe", "green") for n in range(80)]
    return write_lines(tmp_path / "new.jsonl", lines)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A release of a system, and the recipe to refresh it by under the changed taxonomy."""

    def call(system: Any, *, epochs: int = 1) -> tuple[Release, Recipe]:
        release, data = train_on_shop(tmp_path, system, epochs=epochs, batch_size=8)
        recipe = shop_recipe(
            write_changed_shop(data.directory, tmp_path / "changed"),
            tmp_path,
            system,
            LoopSettings(epochs=epochs, batch_size=8, patience=None),
            name=release.name,
        )
        return release, replace(recipe, out=tmp_path / "2", version="2", device="cpu")

    return call


def ave_bert(tmp_path: Path, **changes: Any) -> AveBertSettings:
    encoder = str(save_tiny_bert(tmp_path / "encoder", layers=2, hidden=32))
    settings = {"encoder": encoder, "max_tokens": 24, "cls_layers": 2, "learning_rate": 3e-3}
    return AveBertSettings(kind="ave_bert", **settings | changes)


def dhpc(tmp_path: Path, **changes: Any) -> DhpcSettings:
    encoder = str(save_tiny_bert(tmp_path / "encoder", layers=2, hidden=32))
    rates = {"learning_rate": 2e-3, "head_rate": 1e-2, "embedding_rate": 5e-2}
    settings = {"encoder": encoder, "max_tokens": 24, "head_width": 16, "dropout": 0.0, **rates}
    return DhpcSettings(kind="dhpc", **settings | changes)


def published(report: RefreshReport) -> Release:
    assert report.published is not None
    release = read_release(report.published)
    run_self_check(release, load_predictor(release, CPU, "float32"))
    return release


@pytest.mark.parametrize(
    "changes",
    [{"thresholds": "tuned"}, {"classifiers": "leaf"}, {"classifiers": "top"}],
    ids=["one", "by leaf", "by department"],
)
def test_an_ave_bert_learns_new_labels(
    trained: Trained,
    green_shoes: Path,
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    old, recipe = trained(ave_bert(tmp_path, **changes), epochs=8)
    # How many classifiers, and what thresholds promise, is the release's.
    other = replace(recipe.system, classifiers="one", thresholds="half")
    report = refresh(
        old.directory, replace(recipe, system=other), [green_shoes], gates=WIDE, say=silent
    )
    release = published(report)
    assert release.config == old.config
    assert release.label_thresholds is not None
    assert bool((release.label_thresholds == 0.5).all()) is (changes.get("thresholds") != "tuned")
    before, now = report.figures[old.id], report.figures[release.id]
    assert before["exact_label_sets_of_new_products"] == 0
    assert now["exact_label_sets_of_new_products"] > 0.9
    assert [each.gate for each in report.gates] == [
        "exact label sets",
        "department Home",
        "department Wear",
        "attribute micro F1",
    ]


@pytest.mark.parametrize("classifiers", ["one", "leaf"])
def test_rows_of_labels_are_carried_over_by_id(
    trained: Trained, tmp_path: Path, classifiers: str
) -> None:
    old, recipe = trained(ave_bert(tmp_path, gear="frozen", classifiers=classifiers))
    system = RefreshedAveBert(Job(recipe, DataSet(recipe.data).taxonomy, Processes("cpu")), old)
    before, now = old.weights()["attribute.weight"], system._net.attribute.weight
    if classifiers == "one":
        assert old.labels is not None
        for label in old.labels.ids:
            row = system.labels.row_of[label]
            assert torch.equal(now[row], before[old.labels.row_of[label]])
        return
    # Of four leaves with two values one is gone, and the others have one more.
    assert (len(before), len(now)) == (8, 9)
    kept = [row for row in now if any(torch.equal(row, each) for each in before)]
    assert len(kept) == 6


def test_a_dhpc_learns_a_new_leaf(trained: Trained, gowns: Path, tmp_path: Path) -> None:
    system = dhpc(tmp_path, body="pooled", embedding=8, head_layers=3)
    old, recipe = trained(system, epochs=6)
    report = refresh(old.directory, recipe, [gowns], gates=WIDE, say=silent)
    release = published(report)
    assert release.config == old.config
    assert report.changed == {"categories": {"added": 1, "gone": 1}}
    before, now = report.figures[old.id], report.figures[release.id]
    assert before["category_accuracy_of_new_products"] == 0
    assert now["category_accuracy_of_new_products"] > 0.9


# So small a rate that nothing is learned.
STILL = {"learning_rate": 1e-12, "head_rate": 1e-12, "weight_decay": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"gear": "frozen", "bodies": "shared", "abstention": "department"},
        {"pooling": "max", "head_layers": 1},
        {"bodies": "shared", "first_layers": 1, "segments": False},
    ],
    ids=["frozen", "separate", "shared"],
)
def test_a_dhpc_starts_as_the_release(
    trained: Trained, tmp_path: Path, changes: dict[str, Any]
) -> None:
    old, recipe = trained(dhpc(tmp_path, **changes))
    # What shapes the network is the release's.
    system = dhpc(
        tmp_path / "other", **STILL, gear=changes.get("gear", "finetune"), bodies="shared"
    )
    new = write_lines(
        tmp_path / "new.jsonl", [labelled(n, "shoe", "wear/shoe", "red") for n in range(40)]
    )
    recipe = replace(recipe, data=tmp_path / "shop", system=system)
    release = published(refresh(old.directory, recipe, [new], gates=WIDE, say=silent))
    assert release.config == old.config
    before, now = old.weights(), release.weights()
    assert before.keys() == now.keys()
    learned = [key for key in before if "running_" not in key and "." in key]
    assert len(learned) > 10
    for key in learned:
        torch.testing.assert_close(now[key], before[key], atol=1e-7, rtol=0)


def nets(old: Release, recipe: Recipe) -> tuple[DhpcNet, DhpcNet, RefreshedDhpc]:
    then = dhpc_categories(load_predictor(old, CPU, "float32")).net
    system = RefreshedDhpc(Job(recipe, DataSet(recipe.data).taxonomy, Processes("cpu")), old)
    return then, system._net, system


def test_classifiers_are_found_again_by_their_departments(trained: Trained, tmp_path: Path) -> None:
    old, recipe = trained(dhpc(tmp_path))
    then, now, system = nets(old, recipe)
    departments = old.taxonomy.departments, system._job.taxonomy.departments
    assert departments[0] == departments[1][::-1] == ("wear", "home")
    # Home has one leaf left and so no classifier; wear stood first and stands second.
    assert (then.names, now.names) == (("department", "leaf-0", "leaf-1"), ("department", "leaf-1"))
    was, is_now = then.body("leaf-0").state_dict(), now.body("leaf-1").state_dict()
    assert all(torch.equal(was[key], is_now[key]) for key in was)
    rows = then.head("department").last.weight, now.head("department").last.weight
    assert torch.equal(rows[0].flip(0), rows[1])
    assert old.categories is not None
    leaves = [
        [of.ids[row] for row in net.leaves_of[place]]
        for of, net, place in ((old.categories, then, 0), (system.categories, now, 1))
    ]
    for leaf in ("wear/dress", "wear/shoe"):
        was_row = then.head("leaf-0").last.weight[leaves[0].index(leaf)]
        assert torch.equal(now.head("leaf-1").last.weight[leaves[1].index(leaf)], was_row)


def test_a_classifier_that_was_not_there_begins_as_the_department_one(
    trained: Trained, tmp_path: Path
) -> None:
    _, recipe = trained(dhpc(tmp_path))
    # From the changed taxonomy, where home has one leaf, back to the first one, where it has two.
    changed = replace(recipe, out=tmp_path / "changed-release", data=recipe.data)
    run(changed, silent)
    back = replace(recipe, data=tmp_path / "shop", out=tmp_path / "back")
    then, now, system = nets(read_release(changed.out), back)
    assert then.names == ("department", "leaf-1")
    assert now.names == ("department", "leaf-0", "leaf-1")
    was, is_now = then.body("department").state_dict(), now.body("leaf-1").state_dict()
    assert all(torch.equal(was[key], is_now[key]) for key in was)
    hidden = then.head("department").hidden.state_dict(), now.head("leaf-1").hidden.state_dict()
    assert all(torch.equal(hidden[0][key], hidden[1][key]) for key in hidden[0])
    # Its rows know its leaves by their names.
    taxonomy = system._job.taxonomy
    leaves = [system.categories.ids[row] for row in now.leaves_of[1]]
    named = category_names(taxonomy, taxonomy)
    prepared = system.preparer.prepare([named(leaf) for leaf in leaves])
    now.eval()
    with torch.inference_mode():
        features = body_features(now.body("leaf-1"), prepared, CPU)
        logits = now.head("leaf-1")(features)
    assert logits.argmax(dim=1).tolist() == list(range(len(leaves)))


def test_encoders_of_their_own_are_not_frozen(
    trained: Trained, gowns: Path, tmp_path: Path
) -> None:
    old, recipe = trained(dhpc(tmp_path))
    frozen = replace(recipe.system, gear="frozen", bodies="shared")
    with pytest.raises(SortimentError, match=r"encoder for each classifier.*system\.gear=finetune"):
        refresh(old.directory, replace(recipe, system=frozen), [gowns], say=silent)


def test_the_command_takes_the_recipe_of_the_architecture(
    trained: Trained,
    green_shoes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, recipe = trained(ave_bert(tmp_path, gear="frozen"))
    given = ["--release", old.directory, "--data", recipe.data, "--new", green_shoes]
    given += ["--out", recipe.out, "--report", tmp_path / "report", "--gate", "overall=0.6"]
    given += ["--gate", "attributes=0.3", "--gate", "department=1"]
    given += [f"cache={recipe.cache}", "train.min_steps=0", "train.batch_size=16"]
    monkeypatch.setattr(sys, "argv", ["sortiment-train", "refresh", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said
    assert "passed  exact label sets" in said.out
    report = orjson.loads((tmp_path / "report" / "refresh.json").read_bytes())
    assert report["published"] == str(recipe.out)


def without(value: str, data: Path) -> None:
    """Take a value out of the taxonomy, and leave the products as they are."""
    taxonomy = orjson.loads((data / "taxonomy.json").read_bytes())
    taxonomy["attributes"][0]["values"].remove(value)
    for values in taxonomy["relevant"].values():
        values["Color"].remove(value)
    (data / "taxonomy.json").write_bytes(orjson.dumps(taxonomy))


@pytest.mark.parametrize("classifiers", ["one", "leaf"])
def test_a_label_that_left_the_taxonomy_is_held_against_no_one(
    trained: Trained, green_shoes: Path, tmp_path: Path, classifiers: str
) -> None:
    old, recipe = trained(ave_bert(tmp_path, classifiers=classifiers), epochs=8)
    without("blue", recipe.data)
    gates = replace(WIDE, overall=0.1, attributes=0.1)
    report = refresh(old.directory, recipe, [green_shoes], gates=gates, say=silent)
    published(report)
    assert report.changed == {"labels": {"added": 1, "gone": 1}}
    assert report.figures[old.id]["attribute_micro_f1"] < 1


def test_many_classifiers_have_no_decay(
    trained: Trained, green_shoes: Path, tmp_path: Path
) -> None:
    old, recipe = trained(ave_bert(tmp_path, classifiers="leaf"))
    decaying = replace(recipe.system, classifiers="one", weight_decay=0.01)
    with pytest.raises(SortimentError, match=r"set system\.weight_decay=0"):
        refresh(old.directory, replace(recipe, system=decaying), [green_shoes], say=silent)


def test_labels_that_are_worse_are_refused(trained: Trained, tmp_path: Path) -> None:
    old, recipe = trained(ave_bert(tmp_path), epochs=8)
    other = {"red": "blue", "blue": "red"}
    lines = [labelled(n, "dress", "wear/dress", ("red", "blue")[n % 2]) for n in range(200)]
    for line in lines:
        line["attributes"][0]["value"] = other[line["attributes"][0]["value"]]
    new = write_lines(tmp_path / "new.jsonl", lines)
    with pytest.raises(RefreshRefused, match="exact label sets"):
        refresh(old.directory, recipe, [new], gates=Gates(), hold=0.0, replay=0, say=silent)
    assert not recipe.out.exists()
