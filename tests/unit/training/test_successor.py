from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import SortimentError
from models.noop import noop_release
from tests.releases import TAXONOMY
from training.successor import next_version, refuse_same, version_after


@pytest.mark.parametrize(
    ("version", "following"),
    [("1", "2"), ("9", "10"), ("2026-09", "2026-10"), ("v1.09", "v1.10"), ("beta", None)],
)
def test_next_version(version: str, following: str | None) -> None:
    assert next_version(version) == following


def test_a_release_is_not_made_again_under_its_own_version(tmp_path: Path) -> None:
    old = noop_release(tmp_path / "release", TAXONOMY)
    assert version_after(old, None) == next_version(old.version)
    assert version_after(old, "spring") == "spring"
    refuse_same(old, old.name, "spring")
    with pytest.raises(SortimentError, match="another version"):
        refuse_same(old, old.name, old.version)
