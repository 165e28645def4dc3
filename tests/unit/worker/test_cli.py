"""The command line: exit codes, and errors without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli import cli, main
from worker.settings import Settings, flag, variable


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.chdir(tmp_path)


def code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["sortiment-worker", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_every_setting_but_secrets_is_a_flag_of_run() -> None:
    options = {option.name: option.opts[0] for option in cli.commands["run"].params}

    assert options == {name: flag(name) for name in Settings.model_fields if flag(name)}


def test_wrong_settings_are_listed_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(monkeypatch, "run", "--partitions", "x", "--broker", "rabbit") == 2

    shown = capsys.readouterr().err
    assert "2 problem(s)" in shown
    assert "SORTIMENT_PARTITIONS (--partitions)" in shown
    assert "Traceback" not in shown


def test_a_release_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert code(monkeypatch, "announce", str(tmp_path / "nowhere")) == 1

    shown = capsys.readouterr().err
    assert "ReleaseError" in shown
    assert "nowhere" in shown
    assert "Traceback" not in shown


def test_an_unknown_command_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(monkeypatch, "runn") == 2
    assert "runn" in capsys.readouterr().err


def test_help_names_every_command_and_loads_no_torch() -> None:
    program = (
        "import sys; from worker.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    files = ("produce", "backfill", "replay-dead-letters", "watch")
    for command in ("run", "announce", "topics", *files):
        assert f"  {command} " in shown
    assert shown.endswith("False\n")
