from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from models.errors import SortimentError
from models.loading import load_predictor
from models.noop import noop_release
from models.release import read_release
from models.rivals import Rivals
from models.self_check import run_self_check
from tests.new_labels import labelled, write_changed_shop, write_lines
from tests.releases import TAXONOMY, reseal
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_shop import COLORS
from tests.trained_shop import shop_recipe, small_flagship
from training import refresh as refresh_module
from training.abstention import CALIBRATION_FILE, read_abstention
from training.cli import main
from training.data import DataSet
from training.flagship_learner import FlagshipLearner
from training.flagship_refresh import RefreshedFlagship
from training.gates import Gates
from training.loop import Interrupted
from training.processes import Processes
from training.recipe import DhpcSettings, LoopSettings, Recipe
from training.refresh import RefreshRefused, RefreshReport, recipe_for, refresh
from training.run import run
from training.system import Job

# The gates are for thousands of products: here one product is a point and more.
WIDE = Gates(overall=0.05, department=0.2, calibration=0.3, coverage=0.5, attributes=0.2)


def silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe whose release is there."""
    room = tmp_path_factory.mktemp("first")
    recipe = shop_recipe(
        data,
        room,
        small_flagship(save_tiny_bert(room / "encoder")),
        LoopSettings(epochs=6, batch_size=16),
    )
    run(recipe, silent)
    return recipe


@pytest.fixture
def refreshed(first: Recipe, tmp_path: Path) -> Callable[..., RefreshReport]:
    def call(lines: list[dict[str, Any]], **changes: Any) -> RefreshReport:
        gates, hold = changes.pop("gates", WIDE), changes.pop("hold", 0.2)
        recipe = replace(first, out=tmp_path / "2", version="2", **changes)
        new = write_lines(tmp_path / "new.jsonl", lines)
        return refresh(first.out, recipe, [new], gates=gates, hold=hold, say=silent)

    return call


def zeppelins(count: int = 60) -> list[dict[str, Any]]:
    """What the first release has never seen."""
    return [labelled(n, "zeppelin", "home/lamp", COLORS[n % 2]) for n in range(count)]


def test_what_helps_is_published(
    first: Recipe, refreshed: Callable[..., RefreshReport], tmp_path: Path
) -> None:
    report = refreshed(zeppelins())
    assert report.published == tmp_path / "2"
    old, new = report.figures["shop/1"], report.figures["shop/2"]
    assert new["category_accuracy_of_new_products"] == 1
    assert new["category_accuracy_of_new_products"] > old["category_accuracy_of_new_products"]
    release = read_release(report.published)
    run_self_check(release, load_predictor(release, torch.device("cpu"), "float32"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_harms_is_refused_and_the_old_release_stays(
    first: Recipe, refreshed: Callable[..., RefreshReport], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in first.out.rglob("*") if path.is_file()}
    words = ("dress", "gown")
    wrong = [labelled(n, words[n // 2 % 2], "wear/shoe", COLORS[n % 2]) for n in range(400)]
    for number, line in enumerate(wrong):
        line["title"] += f" {number % 99}"
    with pytest.raises(RefreshRefused, match=r"shop/1 stays.*\n.*category accuracy") as refused:
        refreshed(wrong, gates=replace(WIDE, overall=0.0), hold=0.0)
    assert refused.value.exit_code == 3
    assert refused.value.report.published is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jsonl"]
    assert {path: path.read_bytes() for path in before} == before


def test_the_command_says_why_and_exits_with_3(
    first: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = write_lines(tmp_path / "new.jsonl", zeppelins(30))
    given = ["--release", first.out, "--data", first.data, "--new", new, "--out", tmp_path / "2"]
    given += ["--report", tmp_path / "report", "--gate", "calibration=0", "--gate", "overall=0"]
    given += [f"cache={first.cache}", "train.epochs=1", "train.min_steps=0", "train.batch_size=16"]
    # So high a rate that one epoch spoils the weights.
    given += ["system.rates.heads=30", "system.rates.bag=30", "train.clip_norm=null"]
    monkeypatch.setattr(sys, "argv", ["sortiment-train", "refresh", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 3, said
    assert "not published, release shop/1 stays" in said.err
    assert "REFUSED" in said.out
    assert not (tmp_path / "2").exists()
    report = orjson.loads((tmp_path / "report" / "refresh.json").read_bytes())
    assert report["published"] is None
    assert "**refused**" in (tmp_path / "report" / "refresh.md").read_text()


@pytest.fixture(scope="module")
def wide(first: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe for all that a flagship may have beside an encoder; its release is there."""
    system = small_flagship(
        views="two",
        whole_bag=True,
        min_count=2,
        hidden=True,
        category_dim=4,
        members=2,
        whole_members=1,
        rivals=True,
        served_tables="float16",
    )
    out = tmp_path_factory.mktemp("wide") / "release"
    recipe = replace(first, out=out, name="wide", system=system)
    run(recipe, silent)
    return recipe


@pytest.fixture
def changed_shop(data: Path, tmp_path: Path) -> Path:
    return write_changed_shop(data, tmp_path / "changed")


def test_rows_are_carried_over_by_id(first: Recipe, changed_shop: Path) -> None:
    old = read_release(first.out)
    job = Job(replace(first, data=changed_shop), DataSet(changed_shop).taxonomy, Processes("cpu"))
    system = RefreshedFlagship(job, old)
    weights, before = system._net.state_dict(), old.weights()
    assert old.categories is not None
    for name in ("category.leaf.weight", "category.leaf.bias"):
        for leaf in ("wear/dress", "wear/shoe", "home/lamp"):
            now, then = system.categories.row_of[leaf], old.categories.row_of[leaf]
            assert torch.equal(weights[name][now], before[name][then])
    assert old.labels is not None
    for label in old.labels.ids:
        now, then = system.labels.row_of[label], old.labels.row_of[label]
        assert torch.equal(weights["attribute.weight"][now], before["attribute.weight"][then])
    fresh = weights["category.leaf.weight"][system.categories.row_of["wear/gown"]]
    assert not any(torch.equal(fresh, row) for row in before["category.leaf.weight"])
    assert torch.equal(weights["mixer.bag.weight"], before["mixer.bag.weight"])


def test_a_changed_taxonomy_is_learned_and_published(
    first: Recipe, changed_shop: Path, refreshed: Callable[..., RefreshReport]
) -> None:
    lines = [labelled(n, "gown", "wear/gown", "green") for n in range(80)]
    report = refreshed(lines, data=changed_shop, gates=replace(WIDE, overall=0.5, department=1.0))
    assert report.changed == {
        "categories": {"added": 1, "gone": 1},
        "labels": {"added": 1, "gone": 0},
    }
    assert report.published is not None
    assert read_release(report.published).taxonomy.version == "2"
    new = report.figures["shop/2"]
    assert report.figures["shop/1"]["category_accuracy_of_new_products"] == 0
    assert new["category_accuracy_of_new_products"] > 0.9


def test_a_flagship_without_an_encoder_is_refreshed(
    wide: Recipe, changed_shop: Path, tmp_path: Path
) -> None:
    new = write_lines(
        tmp_path / "new.jsonl",
        [labelled(n, "gown", "wear/gown", "green") for n in range(80)],
    )
    # The network is the release's, whatever shape the recipe has.
    system = replace(
        wide.system,
        min_count=0,
        hidden=False,
        category_dim=0,
        whole_bag=False,
        whole_members=0,
        served_tables="float32",
    )
    recipe = replace(wide, data=changed_shop, out=tmp_path / "2", version="2", system=system)
    gates = replace(WIDE, overall=0.5, department=1.0)
    report = refresh(wide.out, recipe, [new], gates=gates, say=silent)
    assert report.published is not None
    release, old = read_release(report.published), read_release(wide.out)
    assert release.config == old.config
    assert release.config["exclusive"] == ["Color"]
    assert release.weights()["mixer.whole_bag.weight"].dtype == torch.float16
    assert not torch.equal(release.weights()["rivals.lines"], Rivals([]).lines)
    assert torch.equal(
        release.weights()["vocabularies.0.buckets"], old.weights()["vocabularies.0.buckets"]
    )
    run_self_check(release, load_predictor(release, torch.device("cpu"), "float32"))
    assert report.figures["wide/2"]["category_accuracy_of_new_products"] > 0.9


def test_an_attribute_with_two_values_is_exclusive_no_more(wide: Recipe, tmp_path: Path) -> None:
    both = labelled(1, "gown", "wear/dress", COLORS[0])
    both["attributes"].append({"name": "Color", "value": COLORS[1]})
    lines = [both, *(labelled(n, "gown", "wear/dress", COLORS[0]) for n in range(2, 40))]
    new = write_lines(tmp_path / "new.jsonl", lines)
    recipe = replace(wide, out=tmp_path / "2", version="2")
    report = refresh(wide.out, recipe, [new], gates=WIDE, hold=0.02, say=silent)
    assert report.published is not None
    release = read_release(report.published)
    assert release.config["exclusive"] == []
    run_self_check(release, load_predictor(release, torch.device("cpu"), "float32"))


def test_what_the_category_tells_is_carried_over_by_id(wide: Recipe, changed_shop: Path) -> None:
    old = read_release(wide.out)
    job = Job(replace(wide, data=changed_shop), DataSet(changed_shop).taxonomy, Processes("cpu"))
    system = RefreshedFlagship(job, old)
    name = "told.embedding.weight"
    weights, before = system._net.state_dict()[name], old.weights()[name]
    assert len(weights) == 1 + len(system.categories)
    assert torch.equal(weights[0], before[0])
    assert old.categories is not None
    for leaf in ("wear/dress", "wear/shoe", "home/lamp"):
        now, then = system.categories.row_of[leaf], old.categories.row_of[leaf]
        assert torch.equal(weights[1 + now], before[1 + then])


def test_a_frozen_encoder_reads_without_dropout(first: Recipe) -> None:
    job = Job(first, DataSet(first.data).taxonomy, Processes("cpu"))
    encoder = RefreshedFlagship(job, read_release(first.out))._net.encoder
    assert encoder is not None
    assert not encoder.training


def test_the_new_release_promises_what_the_old_one_did(
    first: Recipe, tmp_path: Path, refreshed: Callable[..., RefreshReport]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(first.out, old)
    said = read_abstention(read_release(first.out))
    assert said is not None
    promised = replace(said, target=0.7, by="overall")
    (old / CALIBRATION_FILE).write_bytes(promised.to_json())
    reseal(old)
    new = write_lines(tmp_path / "new.jsonl", zeppelins())
    recipe = replace(first, out=tmp_path / "2", version="2")
    report = refresh(old, recipe, [new], gates=WIDE, say=silent)
    assert report.published is not None
    fresh = read_abstention(read_release(report.published))
    assert fresh is not None
    assert (fresh.target, fresh.by) == (0.7, "overall")


def test_an_interrupted_refresh_goes_on(
    first: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_lines(tmp_path / "new.jsonl", zeppelins())
    # No checkpoint of another test's.
    recipe = replace(first, out=tmp_path / "2", version="2", cache=tmp_path / "cache")
    steps = 0
    plain = FlagshipLearner.loss_of

    def interrupting(self: FlagshipLearner, *rows: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *rows)

    with monkeypatch.context() as patched:
        patched.setattr(FlagshipLearner, "loss_of", interrupting)
        with pytest.raises(Interrupted):
            refresh(first.out, recipe, [new], gates=WIDE, say=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "new.jsonl"]
    said: list[str] = []
    report = refresh(first.out, recipe, [new], gates=WIDE, say=said.append)
    assert any(line.startswith("going on from") for line in said)
    whole = replace(recipe, out=tmp_path / "whole", cache=tmp_path / "other")
    refresh(first.out, whole, [new], gates=WIDE, say=silent)
    assert report.published is not None
    resumed = read_release(report.published).weights()
    for name, tensor in read_release(whole.out).weights().items():
        assert torch.equal(resumed[name], tensor), name


def test_a_refresh_that_was_interrupted_while_it_compared_goes_on(
    first: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_lines(tmp_path / "new.jsonl", zeppelins())
    recipe = replace(first, out=tmp_path / "2", version="2", cache=tmp_path / "cache")

    def interrupted(*_given: Any, **_more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(refresh_module, "judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            refresh(first.out, recipe, [new], gates=WIDE, say=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "new.jsonl"]
    trained: list[int] = []
    plain = FlagshipLearner.loss_of

    def noted(self: FlagshipLearner, *rows: Any) -> torch.Tensor:
        trained.append(1)
        return plain(self, *rows)

    monkeypatch.setattr(FlagshipLearner, "loss_of", noted)
    said: list[str] = []
    report = refresh(first.out, recipe, [new], gates=WIDE, say=said.append)
    assert any(line.startswith("going on from") for line in said)
    assert report.published is not None
    assert not trained
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_the_usual_recipe_is_by_architecture_and_members(first: Recipe, wide: Recipe) -> None:
    assert recipe_for(read_release(first.out)) == "refresh"
    assert recipe_for(read_release(wide.out)) == "refresh-wide"


def test_what_cannot_be_refreshed(first: Recipe, data: Path, tmp_path: Path) -> None:
    new = write_lines(tmp_path / "new.jsonl", zeppelins(5))
    recipe = replace(first, out=tmp_path / "2")
    with pytest.raises(SortimentError, match="shop/1 is there already"):
        refresh(first.out, recipe, [new], say=silent)
    for split in ("train", "valid"):
        with pytest.raises(SortimentError, match=f"{split} is learned from"):
            refresh(first.out, recipe, [new], compare_on=split, say=silent)
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    taxonomy = json.loads(gzip.decompress((data / "taxonomy.json.gz").read_bytes()))
    taxonomy |= {"attributes": [], "relevant": {}}
    (bare / "taxonomy.json.gz").write_bytes(gzip.compress(json.dumps(taxonomy).encode()))
    with pytest.raises(SortimentError, match="has an attribute model, the taxonomy has 0 labels"):
        refresh(first.out, replace(recipe, data=bare, version="2"), [new], say=silent)
    assert not (tmp_path / "2").exists()


def test_a_system_is_refreshed_by_a_recipe_of_its_kind(first: Recipe, tmp_path: Path) -> None:
    release = noop_release(tmp_path / "noop", TAXONOMY)
    new = write_lines(tmp_path / "new.jsonl", zeppelins(5))
    recipe = replace(first, out=tmp_path / "2", version="2")
    with pytest.raises(SortimentError, match="refresh knows ave_bert, dhpc, flagship"):
        refresh(release.directory, recipe, [new], say=silent)
    system = DhpcSettings(kind="dhpc", encoder="bundled")
    with pytest.raises(SortimentError, match=r"of kind flagship \(refresh, or .* dhpc"):
        refresh(first.out, replace(recipe, system=system), [new], say=silent)
