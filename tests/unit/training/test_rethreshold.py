from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from click.testing import CliRunner, Result

from models.errors import ReleaseError, SortimentError
from models.loading import load_predictor
from models.noop import noop_release
from models.release import Release, read_release
from models.release_documents import THRESHOLDS, WEIGHTS
from models.self_check import run_self_check
from tests.releases import TAXONOMY
from tests.tiny_ave_bert import tiny_ave_bert
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_shop import LEAVES, write_shop
from tests.trained_shop import shop_recipe
from training.abstention import CALIBRATION_FILE, Promise, read_abstention
from training.data import DataError, DataSet
from training.recipe import FlagshipSettings, LoopSettings
from training.rethreshold import rethreshold, rethreshold_command
from training.run import run

CPU = torch.device("cpu")
Trained = tuple[Release, DataSet]


def train(folder: Path, **changes: Any) -> Trained:
    """A release that knows two thirds of valid well; of the others a title tells nothing."""
    folder.mkdir(exist_ok=True)
    leaves = list(LEAVES)
    # What is not known is known to be so.
    extra = [
        {"product_id": f"thing-{row}", "title": f"thing {row}", "category": leaves[row % 4]}
        for row in range(100, 160)
    ]
    data = write_shop(folder / "shop", extra=extra)
    valid = data / "valid.jsonl.gz"
    unknown = [
        {"product_id": f"unknown-{row}", "title": f"thing {row % 20}", "category": leaves[row % 4]}
        for row in range(30)
    ]
    lines = b"".join(orjson.dumps(line) + b"\n" for line in unknown)
    valid.write_bytes(gzip.compress(gzip.decompress(valid.read_bytes()) + lines))
    settings: dict[str, Any] = {"encoder": "none", "target_accuracy": 0.9, "target_confidence": 0.6}
    system = FlagshipSettings(kind="flagship", hash_buckets=2048, bag_dim=16, **settings | changes)
    recipe = shop_recipe(data, folder, system, LoopSettings(epochs=6, batch_size=16))
    run(recipe, lambda _line: None)
    return read_release(recipe.out), DataSet(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("trained"))


def promise_of(release: Release) -> Promise:
    said = read_abstention(release)
    assert said is not None
    return Promise(said.target, said.by, said.confidence)


def test_the_same_promise_is_the_same_release(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    new = rethreshold(old, data, tmp_path / "new", "2", promise_of(old))
    assert (new.id, new.directory) == ("shop/2", tmp_path / "new")
    assert new.files == old.files
    assert new.read(CALIBRATION_FILE) == old.read(CALIBRATION_FILE)
    assert new.metrics == {**old.metrics, "thresholds_products": 90}
    assert 0 < old.metrics["coverage"] < 1
    said = read_abstention(old)
    assert said is not None
    # Ten of the 90 products of valid say what another says.
    assert sum(each.texts or 0 for each in said.departments.values()) == 80
    run_self_check(new, load_predictor(new, CPU, "auto"))


def with_valid(data: DataSet, folder: Path, line: bytes) -> DataSet:
    """The data set with a line more, thirty times, in valid."""
    folder.mkdir()
    shutil.copy(data.taxonomy_file, folder)
    lines = gzip.decompress((data.directory / "valid.jsonl.gz").read_bytes())
    (folder / "valid.jsonl").write_bytes(lines + line * 30)
    return DataSet(folder)


def test_products_of_no_leaf_are_left_out(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    line = b'{"product_id": "inner", "title": "dress", "category": "wear"}\n'
    more = with_valid(data, tmp_path / "more", line)
    new = rethreshold(old, more, tmp_path / "new", "2", promise_of(old))
    assert new.files == old.files


def test_products_of_a_new_leaf_count_as_wrong(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    line = b'{"product_id": "new", "title": "dress red", "category": "wear/hat"}\n'
    more = with_valid(data, tmp_path / "more", line)
    taxonomy = orjson.loads(gzip.decompress(more.taxonomy_file.read_bytes()))
    taxonomy["categories"].append({"id": "wear/hat", "name": "Hat", "parent": "wear"})
    more.taxonomy_file.write_bytes(gzip.compress(orjson.dumps(taxonomy)))
    new = rethreshold(old, DataSet(more.directory), tmp_path / "new", "2", promise_of(old))
    assert new.metrics["thresholds_products"] == 120
    assert new.metrics["coverage"] < old.metrics["coverage"]


def test_an_encoder_answers_nearly_as_in_training(tmp_path: Path) -> None:
    encoder = str(save_tiny_bert(tmp_path / "encoder"))
    old, data = train(tmp_path / "trained", encoder=encoder, max_tokens=24)
    assert 0 < old.metrics["coverage"] < 1
    new = rethreshold(old, data, tmp_path / "new", "2", promise_of(old))
    assert old.category_thresholds is not None and new.category_thresholds is not None
    np.testing.assert_allclose(new.category_thresholds, old.category_thresholds, atol=0.01)
    set_anew = {CALIBRATION_FILE, THRESHOLDS}
    assert set(new.files) == set(old.files)
    assert all(new.files[each] == old.files[each] for each in set(old.files) - set_anew)


def test_a_lower_target_assigns_more(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    shares = []
    for number, target in enumerate((0.95, 0.85, 0.3)):
        promise = Promise(target, "overall", 0.5)
        new = rethreshold(old, data, tmp_path / str(number), "2", promise)
        said = read_abstention(new)
        assert said is not None
        assert (said.target, said.by, said.confidence) == (target, "overall", 0.5)
        assert new.category_thresholds is not None
        assert set(new.category_thresholds.tolist()) == {float(np.float32(said.overall))}
        assert new.files[WEIGHTS] == old.files[WEIGHTS]
        shares.append(new.metrics["coverage"])
    assert 0 < shares[0] <= shares[1] < shares[2] == 1


def command(old: Path, data: DataSet, out: Path, *options: str) -> Result:
    given = ["--release", str(old), "--data", str(data.directory), "--out", str(out)]
    return CliRunner().invoke(rethreshold_command, [*given, "--device", "cpu", *options])


def test_the_command_keeps_what_is_not_given(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    done = command(old.directory, data, tmp_path / "new", "--confidence", "0.6")
    assert done.exit_code == 0, done.output
    assert "release shop/2" in done.output and "of these right" in done.output
    assert "nothing is assigned" not in done.output
    wanted = promise_of(old)
    assert promise_of(read_release(tmp_path / "new")) == Promise(wanted.target, wanted.by, 0.6)


def test_a_promise_that_cannot_be_kept_is_told(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    options = ["--target", "0.99", "--confidence", "0.99"]
    done = command(old.directory, data, tmp_path / "new", *options)
    assert done.exit_code == 0, done.output
    assert "nothing is assigned" in done.output and "90 valid products" in done.output


def test_a_release_without_a_promise_is_given_all_of_one(trained: Trained, tmp_path: Path) -> None:
    _, data = trained
    old = noop_release(tmp_path / "old", data.taxonomy).directory
    options = ["--target", "0.2", "--by", "overall"]
    refused = command(old, data, tmp_path / "new", *options)
    assert "give --target, --confidence and --by" in str(refused.exception)
    done = command(old, data, tmp_path / "new", *options, "--confidence", "0.7")
    assert done.exit_code == 0, done.output
    assert promise_of(read_release(tmp_path / "new")) == Promise(0.2, "overall", 0.7)


def test_what_cannot_be_done_is_said(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    promise = promise_of(old)
    with pytest.raises(ReleaseError, match="already there"):
        rethreshold(old, data, old.directory, "2", promise)
    with pytest.raises(SortimentError, match="another version"):
        rethreshold(old, data, tmp_path / "new", old.version, promise)
    other = tiny_ave_bert(tmp_path, TAXONOMY, "one")
    with pytest.raises(SortimentError, match="no category model"):
        rethreshold(other, data, tmp_path / "new", "2", promise)
    empty = with_valid(data, tmp_path / "empty", b"")
    (empty.directory / "valid.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="no products in valid"):
        rethreshold(old, empty, tmp_path / "new", "2", promise)
    assert not (tmp_path / "new").exists()
