from typing import Any

import orjson
import pytest

from models.errors import ReleaseError
from models.manifest import SCHEMA, FileEntry, Manifest

MANIFEST = Manifest(
    name="tiny",
    version="1",
    created="2026-01-01T00:00:00+00:00",
    architecture="linear",
    config={"dim": 3},
    taxonomy_name="shop",
    taxonomy_version="7",
    categories=(3, "abc"),
    labels=None,
    metrics={},
    files={"a/b.json": FileEntry("a/b.json", 2, "0" * 64)},
)


def test_round_trip() -> None:
    assert Manifest.parse(MANIFEST.to_json(), "m") == MANIFEST


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/", "a\\b", "C:a", "a\nb", "a\x00b"),
        *("manifest.json", "a" * 513),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    raw = orjson.loads(MANIFEST.to_json())
    raw["files"][0]["path"] = path
    with pytest.raises(ReleaseError, match=r"m, files\[0\].*is not a path inside a release"):
        Manifest.parse(orjson.dumps(raw), "m")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([7], r"files\[0\] must be an object"),
        ([{"path": "a", "bytes": -1, "sha256": "0" * 64}], "cannot be right"),
        ([{"path": "a", "bytes": 1, "sha256": "xyz"}], "cannot be right"),
        ([{"path": "a", "bytes": True, "sha256": "0" * 64}], "bytes must be of type int"),
        ([{"path": "a", "bytes": 1, "sha256": "0" * 64}] * 2, "'a' is there twice"),
    ],
)
def test_file_entries_that_are_wrong_are_refused(files: list[Any], message: str) -> None:
    raw = orjson.loads(MANIFEST.to_json()) | {"files": files}
    with pytest.raises(ReleaseError, match=message):
        Manifest.parse(orjson.dumps(raw), "m")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "m is not JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b"{}", "format None is unknown"),
        (orjson.dumps({"schema": SCHEMA}), "is missing"),
        (b" " * (16 * 1024 * 1024 + 1), "are no manifest"),
    ],
)
def test_what_is_no_manifest(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        Manifest.parse(data, "m")
