from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.swaps.versions import announcement, as_version
from models.errors import ReleaseError
from models.noop import noop_release
from models.release import read_release
from tests.catalog import small_taxonomy


def test_a_version_is_a_release_like_any_other_and_takes_no_room(tmp_path: Path) -> None:
    made = noop_release(tmp_path / "made", small_taxonomy())
    release = read_release(as_version(made.directory, tmp_path / "again", "17"))
    assert (release.id, made.id) == ("noop/17", "noop/1")
    assert release.taxonomy_sha256 == made.taxonomy_sha256
    for path in made.files:
        assert (release.directory / path).samefile(made.directory / path)


def test_an_announcement_names_the_content(tmp_path: Path) -> None:
    made = noop_release(tmp_path / "made", small_taxonomy())
    said = announcement(made.directory)
    assert (said.release, said.manifest_sha256) == (made.id, made.manifest_sha256)
    assert Path(said.address) == made.directory


def test_a_version_that_is_no_name_is_refused(tmp_path: Path) -> None:
    made = noop_release(tmp_path / "made", small_taxonomy())
    with pytest.raises(ReleaseError, match="version"):
        as_version(made.directory, tmp_path / "again", "no name")
