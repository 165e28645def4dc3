from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from worker.corrections import Corrections
from worker.errors import SortimentError
from worker.snapshot_corrections import _write


class Failing(Corrections):
    """Its second line cannot be read again."""

    def lines(self) -> Iterator[bytes]:
        yield b"{}\n"
        raise OSError("the disk is gone")


@pytest.fixture
def corrections() -> Iterator[Corrections]:
    with closing(Corrections()) as made:
        yield made


def test_neither_file_changes_where_one_cannot_be_written(
    tmp_path: Path, corrections: Corrections
) -> None:
    out = tmp_path / "sub" / "corrections.jsonl"
    _write(out, corrections, b"{}")
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    assert sorted(before) == ["corrections.jsonl", "corrections.jsonl.offsets.json"]
    with (
        closing(Failing()) as failing,
        pytest.raises(SortimentError, match="cannot be written: the disk is gone"),
    ):
        _write(out, failing, b'{"events": 2}')
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before


def test_trainers_of_other_users_can_read_it(tmp_path: Path, corrections: Corrections) -> None:
    out = tmp_path / "corrections.jsonl"
    _write(out, corrections, b"{}")
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644
