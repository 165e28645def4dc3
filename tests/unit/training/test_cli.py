from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import fsspec
import pytest
from click.testing import CliRunner

from models.errors import SortimentError
from models.noop import noop_release
from models.release import read_release
from models.release_store import fetch_release
from tests.releases import TAXONOMY
from training import cli as cli_module
from training.cli import cli, main
from training.recipe_files import packaged_recipes


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sortiment-train", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def test_help_names_all_commands_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from training.cli import cli\n"
        "print(CliRunner().invoke(cli, ['--help']).output)\n"
        "print(CliRunner().invoke(cli, ['run', '--help']).output)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("evaluate", "recipes", "run", "taxonomy", "KEY=VALUE"):
        assert name in done.stdout


def test_listed_commands_exist() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help


def test_wrong_usage_is_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_main(monkeypatch, "run", "flagship", f"data={tmp_path}", "tarin.epochs=1") == 2
    printed = capsys.readouterr().err
    assert "out is missing" in printed
    assert "did you mean train?" in printed
    assert run_main(monkeypatch, "nothing") == 2


def test_an_expected_error_is_exit_1_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [f"data={tmp_path}", f"out={tmp_path / 'r'}", "device=cpu"]
    assert run_main(monkeypatch, "run", "flagship", *given) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "taxonomy.json" in printed
    assert "Traceback" not in printed


def test_recipes_are_listed_with_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(packaged_recipes())
    assert any(line.startswith("flagship ") and "encoder" in line for line in lines)


def test_help_is_exit_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "--help") == 0


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (SortimentError("x"), 1), (OSError(28, "No space left", "x"), 1)],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int) -> None:
    @click.command("fail", help="Fails.")
    def fail() -> None:
        raise raised

    monkeypatch.setitem(cli.commands, "fail", fail)
    assert run_main(monkeypatch, "fail") == code


def test_an_interrupted_run_is_exit_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.loop import Interrupted

    @click.command("fail", help="Fails.")
    def fail() -> None:
        raise Interrupted(Path("run.pt"))

    monkeypatch.setitem(cli.commands, "fail", fail)
    assert run_main(monkeypatch, "fail") == 130
    assert "goes on from there" in capsys.readouterr().err


def test_a_command_may_end_with_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("leave", help="Leaves.")
    @click.pass_context
    def leave(context: click.Context) -> None:
        context.exit(3)

    monkeypatch.setitem(cli.commands, "leave", leave)
    assert run_main(monkeypatch, "leave") == 3


def test_what_is_named_lazily_must_be_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_module, "_COMMANDS", {"main": ("training.cli", "main")})
    result = CliRunner().invoke(cli, ["main"])
    assert isinstance(result.exception, TypeError)


def test_a_release_is_uploaded_and_its_address_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    release = noop_release(tmp_path / "release", TAXONOMY)
    address = (tmp_path / "store" / "noop" / "1").as_uri()
    assert run_main(monkeypatch, "upload", str(release.directory), address) == 0
    assert capsys.readouterr().out == f"release noop/1: {address}\n"
    assert read_release(fetch_release(address, tmp_path)).id == "noop/1"
    assert run_main(monkeypatch, "upload", str(release.directory), address) == 1
    assert "already at" in capsys.readouterr().err
    (release.directory / "labels.json").write_bytes(b"[]")
    assert run_main(monkeypatch, "upload", str(release.directory), f"{address}-2") == 1
    assert "labels.json has 2 bytes" in capsys.readouterr().err
    assert not (tmp_path / "store" / "noop" / "1-2").exists()


def test_the_password_of_an_address_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    release = noop_release(tmp_path / "release", TAXONOMY)
    address = "memory://user:secret@store/noop/1"
    assert run_main(monkeypatch, "upload", str(release.directory), address) == 0
    assert capsys.readouterr().out == "release noop/1: memory://***@store/noop/1\n"
    fsspec.filesystem("memory").store.clear()


def test_an_address_where_a_folder_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [f"data={tmp_path}", "out=s3://user:secret@bucket/releases/1"]
    assert run_main(monkeypatch, "run", "flagship", *given) == 2
    printed = capsys.readouterr().err
    assert "out: must be a folder of this machine, not an address" in printed
    assert "secret" not in printed
    new = tmp_path / "new.jsonl"
    new.touch()
    options = [
        "--release",
        tmp_path,
        "--data",
        tmp_path,
        "--new",
        new,
        "--out",
        "s3://user:secret@b/1",
    ]
    assert run_main(monkeypatch, "refresh", *map(str, options)) == 2
    printed = capsys.readouterr().err
    assert "must be a folder of this machine, not an address" in printed
    assert "secret" not in printed
