from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ReleaseError, SortimentError
from models.loading import load_predictor, run_self_check
from models.release import Release, read_release
from models.release_documents import WEIGHTS
from tests.releases import TAXONOMY
from tests.tiny_ave_bert import tiny_ave_bert
from tests.trained_shop import train_on_shop
from training.abstention import CALIBRATION_FILE, Promise, read_abstention
from training.cli import main
from training.data import DataError, DataSet
from training.recipe import FlagshipSettings
from training.rethreshold import rethreshold

CPU = torch.device("cpu")
Trained = tuple[Release, DataSet]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Barely trained, so that some scores are worth the target and some are not."""
    system = FlagshipSettings(
        kind="flagship",
        encoder="none",
        hash_buckets=64,
        bag_dim=4,
        target_accuracy=0.6,
        target_confidence=0.55,
    )
    return train_on_shop(tmp_path_factory.mktemp("trained"), system, epochs=6)


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
    assert new.metrics == old.metrics
    assert 0 < old.metrics["coverage"] < 1
    run_self_check(new, load_predictor(new, CPU, "auto"))


def test_products_of_no_leaf_are_left_out(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    (tmp_path / "more").mkdir()
    lines = gzip.decompress((data.directory / "valid.jsonl.gz").read_bytes())
    lines += b'{"product_id": "inner", "title": "dress", "category": "wear"}\n' * 30
    (tmp_path / "more" / "valid.jsonl").write_bytes(lines)
    new = rethreshold(old, DataSet(tmp_path / "more"), tmp_path / "new", "2", promise_of(old))
    assert new.files == old.files


def test_a_lower_target_assigns_more(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    shares = []
    for number, target in enumerate((0.95, 0.8, 0.3)):
        promise = Promise(target, "overall", 0.5)
        new = rethreshold(old, data, tmp_path / str(number), "2", promise)
        said = read_abstention(new)
        assert said is not None
        assert (said.target, said.by, said.confidence) == (target, "overall", 0.5)
        assert new.category_thresholds is not None
        assert set(new.category_thresholds.tolist()) == {float(np.float32(said.overall))}
        assert new.files[WEIGHTS] == old.files[WEIGHTS]
        shares.append(new.metrics["coverage"])
    assert shares[0] < shares[1] < shares[2] == 1


def test_the_command_keeps_what_is_not_given(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, data = trained
    command = ["sortiment-train", "rethreshold", "--release", str(old.directory)]
    command += ["--data", str(data.directory), "--out", str(tmp_path / "new"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*command, "--confidence", "0.6"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "release shop/2" in told and "of these right" in told
    wanted = promise_of(old)
    assert promise_of(read_release(tmp_path / "new")) == Promise(wanted.target, wanted.by, 0.6)


def test_what_cannot_be_done_is_said(trained: Trained, tmp_path: Path) -> None:
    old, data = trained
    with pytest.raises(ReleaseError, match="already there"):
        rethreshold(old, data, old.directory, "2", Promise())
    other = tiny_ave_bert(tmp_path, TAXONOMY, "one")
    with pytest.raises(SortimentError, match="no category model"):
        rethreshold(other, data, tmp_path / "new", "2", Promise())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "valid.jsonl").touch()
    with pytest.raises(DataError, match="no products in valid"):
        rethreshold(old, DataSet(tmp_path / "empty"), tmp_path / "new", "2", Promise())
    assert not (tmp_path / "new").exists()
