import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from models.errors import ReleaseError
from models.labels import LabelSpace
from models.manifest import MANIFEST
from models.product import Product
from models.release import Release, read_release
from models.release_documents import Example
from models.release_writing import write_release
from tests.releases import TAXONOMY, reseal

CATEGORIES = LabelSpace(("boots", "sneakers", "bags"))
LABELS = LabelSpace(("Color=red", "Size=36"))
EXAMPLE = Example(
    Product("p1", None, "en", "Red boots", "", ("warm",), (), None),
    "boots",
    (("boots", 0.75), ("bags", 0.25)),
    (("Color=red", 0.5),),
    0.05,
)


def write(directory: Path, **changed: Any) -> Release:
    arguments: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0",
        "architecture": "linear",
        "config": {"dim": 3},
        "taxonomy": TAXONOMY,
        "categories": CATEGORIES,
        "labels": LABELS,
        "category_thresholds": np.array([0.5, 0.25, 1.0], dtype=np.float32),
        "label_thresholds": np.array([0.1, 0.9], dtype=np.float32),
        "weights": {
            "w": torch.arange(6.0).view(2, 3).t(),
            "b": torch.tensor([1], dtype=torch.int8),
        },
        "files": {"tokenizer/tokenizer.json": b"{}"},
        "examples": [EXAMPLE],
        "metrics": {"category_accuracy": 0.5},
    }
    return write_release(directory, **(arguments | changed))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny" / "1.0").directory


def test_what_was_written_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own.bin"
    own.write_bytes(b"own")
    release = write(tmp_path / "r", files={"deep/er/own.bin": own, "tokenizer.json": b"{}"})
    again = read_release(tmp_path / "r")
    assert again.id == "tiny/1.0"
    assert again.architecture == "linear"
    assert again.config == {"dim": 3}
    assert again.metrics == {"category_accuracy": 0.5}
    assert again.taxonomy == TAXONOMY
    assert again.categories == CATEGORIES
    assert again.labels == LABELS
    assert again.category_thresholds is not None
    assert again.category_thresholds.tolist() == [0.5, 0.25, 1.0]
    assert again.category_thresholds.dtype == np.float32
    assert again.label_thresholds is not None
    assert again.label_thresholds.tolist() == pytest.approx([0.1, 0.9])
    assert again.examples == (EXAMPLE,)
    assert again.read("deep/er/own.bin") == b"own"
    weights = again.weights()
    assert weights["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert weights["b"].dtype == torch.int8
    assert again.manifest_sha256 == release.manifest_sha256
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_either_model_may_be_missing(tmp_path: Path) -> None:
    only_labels = write(
        tmp_path / "a",
        categories=None,
        category_thresholds=None,
        weights={},
        examples=[Example(EXAMPLE.product, "boots", (), EXAMPLE.labels, 0.05)],
    )
    assert only_labels.categories is None
    assert only_labels.category_thresholds is None
    assert only_labels.weights() == {}
    with pytest.raises(ReleaseError, match="neither a category nor an attribute model"):
        write(
            tmp_path / "b",
            categories=None,
            category_thresholds=None,
            labels=None,
            label_thresholds=None,
        )


def test_a_release_is_never_overwritten(directory: Path) -> None:
    with pytest.raises(ReleaseError, match="already there"):
        write(directory)
    read_release(directory)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nowhere cannot be read"):
        write(tmp_path / "r", files={"x": tmp_path / "nowhere"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "a/b"}, "name has 1 to 128"),
        ({"version": ""}, "version has 1 to 128"),
        ({"version": ".hidden"}, "version has 1 to 128"),
        ({"files": {"../x": b""}}, "not a path inside"),
        ({"files": {"labels.json": b""}}, "the format's own file"),
        ({"label_thresholds": np.array([0.5, np.nan], dtype=np.float32)}, "not a number"),
        ({"label_thresholds": np.array([0.5, 1.5], dtype=np.float32)}, "from 0 to 1"),
        ({"label_thresholds": np.array([0.5], dtype=np.float32)}, "2 thresholds are needed"),
        ({"label_thresholds": None}, "do not match"),
        ({"categories": LabelSpace(("boots", "hats", "bags"))}, "taxonomy lacks, first 'hats'"),
        ({"labels": LabelSpace(("Color=red", "Color=green"))}, "first 'Color=green'"),
        ({"examples": []}, "no examples"),
    ],
)
def test_what_would_not_be_read_is_not_released(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReleaseError, match=message):
        write(tmp_path / "r", **changed)


def put(path: str, content: bytes) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / path).write_bytes(content)

    return change


def flip_a_byte(directory: Path) -> None:
    weights = bytearray((directory / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (directory / "weights.safetensors").write_bytes(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / MANIFEST).unlink(), "cannot be read"),
        (lambda d: (d / "labels.json").unlink(), r"labels\.json is missing"),
        (put("extra.txt", b""), r"'extra\.txt' is not in manifest\.json"),
        (put("labels.json", b"[]"), r"labels\.json has 2 bytes"),
        (flip_a_byte, r"weights\.safetensors has SHA-256"),
        (lambda d: (d / "link").symlink_to(d / "labels.json"), "'link' is a symbolic link"),
        (lambda d: (d / "up").symlink_to(d.parent), "'up' is a symbolic link"),
    ],
)
def test_an_altered_directory_is_refused(
    directory: Path, change: Callable[[Path], None], message: str
) -> None:
    change(directory)
    with pytest.raises(ReleaseError, match=message):
        read_release(directory)


def other_taxonomy(directory: Path) -> None:
    path = directory / "taxonomy.json.gz"
    raw = orjson.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(orjson.dumps(raw | {"version": "8"})))


def example(**changed: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "examples.json"
        path.write_bytes(orjson.dumps([orjson.loads(path.read_bytes())[0] | changed]))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("labels.json", b'["Size=36","Color=red"]'), r"labels\.json: 2 ids of hash"),
        (put("labels.json", b'["Color=red"]'), r"labels\.json: 1 ids of hash"),
        (put("labels.json", b'["a","a"]'), "holds 1 ids twice"),
        (put("labels.json", b"[1, 2]"), "must hold strings"),
        (put("labels.json", b"{}"), "must hold a list, got dict"),
        (put("labels.json", b"[" * 2000), "is not JSON"),
        (put("thresholds.json", b"\xff"), "is not JSON"),
        (
            put("thresholds.json", b'{"categories":[0.5,0.5,NaN],"labels":[0.5,0.5]}'),
            "is not JSON",
        ),
        (
            put("thresholds.json", b'{"categories":[0.5,0.5,null],"labels":[0.5,0.5]}'),
            "from 0 to 1",
        ),
        (
            put("thresholds.json", b'{"categories":[0.5,0.5,-0.1],"labels":[0.5,0.5]}'),
            "from 0 to 1",
        ),
        (put("thresholds.json", b'{"categories":[0.5,0.5],"labels":[0.5,0.5]}'), "3 thresholds"),
        (put("taxonomy.json.gz", b"no gzip"), "taxonomy.json.gz: cannot be read"),
        (put("taxonomy.json.gz", gzip.compress(b"{}")), "problem"),
        (other_taxonomy, "is shop version 8, manifest.json says shop version 7"),
        (lambda d: (d / "thresholds.json").unlink(), r"lists no thresholds\.json"),
        (example(mask_category="hats"), "example 0 is not one"),
        (example(categories=[["boots", 2.0]]), "example 0 is not one"),
        (example(labels=[["Color=blue", 0.5]]), "example 0 is not one"),
        (example(product={"title": "no id"}), "example 0 is not one"),
        (example(tolerance=0), "example 0 is not one"),
        (put("examples.json", b"[]"), "no examples"),
    ],
)
def test_contents_that_do_not_fit_are_refused(
    directory: Path, change: Callable[[Path], None], message: str
) -> None:
    """The digests are right here: someone made a release with other tools."""
    change(directory)
    reseal(directory)
    with pytest.raises(ReleaseError, match=message):
        read_release(directory)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": "sortiment.release.v2"}, r"format 'sortiment\.release\.v2' is unknown"),
        ({"schema": None}, "format None is unknown"),
        ({"name": 3}, "name must be of type str, got int"),
        ({"config": []}, "config must be of type dict"),
        ({"taxonomy": {"name": "shop"}}, "version is missing"),
        ({"labels": {"count": "2", "hash": ""}}, "count must be of type int"),
        ({"labels": None}, "names no such label space"),
        ({"name": "../../etc"}, "name has 1 to 128"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(
    directory: Path, changed: dict[str, Any], message: str
) -> None:
    reseal(directory, **changed)
    with pytest.raises(ReleaseError, match=message):
        read_release(directory)


def test_weights_altered_after_reading_are_refused(directory: Path) -> None:
    release = read_release(directory)
    flip_a_byte(directory)
    with pytest.raises(ReleaseError, match="it was altered"):
        release.weights()


def test_weights_that_are_not_safetensors_are_refused(directory: Path) -> None:
    put("weights.safetensors", b"pickle")(directory)
    reseal(directory)
    with pytest.raises(ReleaseError, match="is not safetensors"):
        read_release(directory).weights()


def test_only_listed_files_are_read(directory: Path) -> None:
    with pytest.raises(ReleaseError, match=r"there is no \.\./secret"):
        read_release(directory).read("../secret")
