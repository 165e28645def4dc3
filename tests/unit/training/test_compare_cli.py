from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from training.cli import cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flagship", "out=o"], "give data=DIR"),
        (["flagship", "rows=whole"], "give data=DIR. give out=DIR."),
        (["dhpc-amazon", "data=d", "out=o", "categories=x"], "categories: not for dhpc-amazon"),
        (["dhpc-amazon", "data=d", "out=o", "against=x"], "a table of categories"),
        (["flagship", "data=d", "out=o", "categories=x"], "a table of parts"),
        (["flagship", "data=d", "out=o", "notes=gone.md"], "notes=gone.md cannot be read"),
    ],
)
def test_what_a_table_does_not_take(arguments: Sequence[str], said: str) -> None:
    ended = CliRunner().invoke(cli, ["compare", *arguments])
    assert ended.exit_code == 2
    assert said in ended.output


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["compare", "flagship", f"data={tmp_path / 'd'}", "out=o"])
    assert "no data set at" in str(ended.exception)
