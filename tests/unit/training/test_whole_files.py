from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import SortimentError
from tests.small_disk import small_disk
from training.whole_files import written_whole


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    for text in ("one", "two"):
        with written_whole(path) as fresh:
            fresh.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with (
        small_disk(1_000),
        pytest.raises(SortimentError, match=r"a\.json cannot be written: .*too large"),
        written_whole(path) as fresh,
    ):
        fresh.write_bytes(bytes(2_000))
    assert path.read_text() == "old"
    with pytest.raises(KeyboardInterrupt), written_whole(path) as fresh:
        fresh.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SortimentError, match="cannot be written"),
        written_whole(tmp_path / "file" / "a.json"),
    ):
        pass
