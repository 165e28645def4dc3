from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from worker.local.child import ChildProcess, wait_or_stop, wait_until
from worker.local.errors import LocalServiceError

_WAIT = "import sys; print('here', flush=True); sys.stdin.read()"
# Ignores SIGTERM; says so first, so that a test does not signal too early.
_STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('here', flush=True); sys.stdin.read()"
)


def python(code: str, log: Path, **options: float) -> ChildProcess:
    child = ChildProcess("a child", [sys.executable, "-c", code], log, **options)  # type: ignore[arg-type]
    return child


def wait_for_output(child: ChildProcess) -> None:
    wait_until(child, lambda: None if "here" in child.log_tail() else "no output", 30, "output")


def test_exit_status_and_log(tmp_path: Path) -> None:
    with python("import sys; print('to the log'); sys.exit(7)", tmp_path / "log") as child:
        assert child.wait(30) == 7
        assert "to the log" in child.log_tail()
        assert str(tmp_path / "log") in child.log_tail()


def test_standard_output_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('log', file=sys.stderr)"
    child = ChildProcess(
        "a child", [sys.executable, "-c", code], tmp_path / "log", out_path=tmp_path / "out"
    )
    assert child.wait(30) == 0
    child.stop()
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "log").read_text() == "log\n"


def test_stop_is_sigterm_and_may_be_repeated(tmp_path: Path) -> None:
    child = python(_WAIT, tmp_path / "log")
    wait_for_output(child)
    assert child.poll() is None
    assert child.stop() == 128 + signal.SIGTERM
    assert child.stop() == 128 + signal.SIGTERM
    child.send_signal(signal.SIGTERM)


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    child = python(_STUBBORN, tmp_path / "log", grace_s=0.2)
    wait_for_output(child)
    assert child.stop() == 128 + signal.SIGKILL


def test_kill_is_sigkill(tmp_path: Path) -> None:
    child = python(_WAIT, tmp_path / "log")
    child.kill()
    assert child.poll() == 128 + signal.SIGKILL


def test_signals_reach_the_child(tmp_path: Path) -> None:
    child = python(_WAIT, tmp_path / "log")
    child.send_signal(signal.SIGUSR1)
    assert child.wait(30) == 128 + signal.SIGUSR1
    child.stop()


def test_orderly_stop_leaves_its_directories(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    child = ChildProcess("a child", [sys.executable, "-c", _WAIT], tmp_path / "log", remove=[kept])
    child.stop()
    assert kept.is_dir()


def test_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalServiceError, match=r"nothing: cannot start /no/such.*No such file"):
        ChildProcess("nothing", ["/no/such/program"], tmp_path / "log")


def test_wait_that_takes_too_long_names_the_log(tmp_path: Path) -> None:
    with (
        python(_WAIT, tmp_path / "log") as child,
        pytest.raises(LocalServiceError, match=r"still runs after 0\.05 s.*\n.*log"),
    ):
        child.wait(0.05)


def test_readiness_reports_the_reason_or_the_end(tmp_path: Path) -> None:
    with (
        python(_WAIT, tmp_path / "log") as child,
        pytest.raises(LocalServiceError, match=r"an answer not after 0\.05 s \(not yet\)"),
    ):
        wait_until(child, lambda: "not yet", 0.05, "an answer")
    with (
        python("import sys; sys.exit('broken')", tmp_path / "end") as ended,
        pytest.raises(LocalServiceError, match=r"(?s)status 1 before an answer.*broken"),
    ):
        wait_until(ended, lambda: "not yet", 30, "an answer")


def test_what_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    child = python(_WAIT, tmp_path / "log")
    wait_or_stop(child, lambda: None, 0.05, "an answer")
    assert child.poll() is None
    with pytest.raises(LocalServiceError, match=r"an answer not after 0\.05 s"):
        wait_or_stop(child, lambda: "not yet", 0.05, "an answer")
    assert child.poll() == 128 + signal.SIGTERM
