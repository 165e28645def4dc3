"""A child process that never outlives this one, with its output in a file that errors name."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from worker.local.errors import LocalServiceError

__all__ = ["ChildProcess", "wait_or_stop", "wait_until"]

_TETHER = Path(__file__).with_name("tether.py")
_POLL_S = 0.05


class ChildProcess:
    """Runs a command until it ends, ``stop`` is called or this process ends in any way.

    Args:
        name: for error messages ("Apache Kafka").
        command: program and arguments; nothing is read by a shell.
        log_path: gets standard output and standard error, appended.
        env: the whole environment of the child; None: this process's own.
        cwd: working directory.
        out_path: standard output goes here instead.
        grace_s: from SIGTERM to SIGKILL.
        remove: directories that are removed if this process dies without calling ``stop``.

    Raises:
        LocalServiceError: the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        out_path: Path | None = None,
        grace_s: float = 10.0,
        remove: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.grace_s = grace_s
        flags = [text for directory in remove for text in ("--remove", str(directory))]
        self._control_lock = threading.Lock()
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(grace_s)]
        self._tether = subprocess.Popen(
            [*tether, str(out_path or log_path), str(log_path), *flags, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            # Ctrl-C in a terminal reaches this process, which then stops its children in order.
            start_new_session=True,
        )
        # For the type checker: three pipes were asked for.
        assert self._tether.stdout is not None
        assert self._tether.stderr is not None
        first_line = self._tether.stdout.readline().strip()
        self._tether.stdout.close()
        if not first_line:
            self._tether.wait()
            complaint = self._tether.stderr.read().decode(errors="replace").strip()
            self._close_pipes()
            reason = complaint.splitlines()[-1] if complaint else "no reason given"
            raise LocalServiceError(f"{name}: cannot start {command[0]}: {reason}")
        self._tether.stderr.close()
        self.pid = int(first_line)
        atexit.register(self._abandon)

    def poll(self) -> int | None:
        """The exit status, 128 + n where signal n ended it; None while running."""
        return self._tether.poll()

    def wait(self, timeout_s: float) -> int:
        """The exit status.

        Raises:
            LocalServiceError: still running after ``timeout_s``.
        """
        try:
            return self._tether.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LocalServiceError(
                f"{self.name} still runs after {timeout_s:g} s\n{self.log_tail()}"
            ) from None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child; nothing happens when it has ended."""
        self._tell(f"{int(number)}\n")

    def kill(self) -> None:
        """End the child at once (SIGKILL) and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, SIGKILL after ``grace_s``; returns the exit status. May be called again."""
        return self._end(signal.SIGTERM)

    def log_tail(self, lines: int = 25) -> str:
        """The end of the log with its file name, for error messages."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        shown = "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])
        return f"log of {self.name}: {self.log_path}\n{shown}"

    def _end(self, number: signal.Signals) -> int:
        self._tell(f"keep\n{int(number)}\n")
        try:
            status = self._tether.wait(self.grace_s)
        except subprocess.TimeoutExpired:
            self._tell(f"{int(signal.SIGKILL)}\n")
            status = self._tether.wait()
        self._close_pipes()
        atexit.unregister(self._abandon)
        return status

    def _abandon(self) -> None:
        """At the interpreter's exit: the tether ends the child and removes its directories."""
        self._close_pipes()
        self._tether.wait()

    def _tell(self, text: str) -> None:
        pipe = self._tether.stdin
        assert pipe is not None
        with self._control_lock:
            if pipe.closed:
                return
            try:
                pipe.write(text.encode())
                pipe.flush()
            except BrokenPipeError:
                return

    def _close_pipes(self) -> None:
        for pipe in (self._tether.stdin, self._tether.stdout, self._tether.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def wait_until(
    child: ChildProcess, ready: Callable[[], str | None], deadline_s: float, what: str
) -> None:
    """Ask ``ready`` until it returns None; anything else is the reason why not yet.

    Raises:
        LocalServiceError: the child ended, or the deadline passed; with reason and log.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        reason = ready()
        if reason is None:
            return
        status = child.poll()
        if status is not None:
            raise LocalServiceError(
                f"{child.name} ended with status {status} before {what}\n{child.log_tail()}"
            )
        if time.monotonic() > deadline:
            raise LocalServiceError(
                f"{child.name}: {what} not after {deadline_s:g} s ({reason})\n{child.log_tail()}"
            )
        time.sleep(_POLL_S)


def wait_or_stop(
    child: ChildProcess, ready: Callable[[], str | None], deadline_s: float, what: str
) -> None:
    """``wait_until``; a child that is not ready in time is stopped, whatever the reason.

    Raises:
        LocalServiceError: as ``wait_until``.
    """
    try:
        wait_until(child, ready, deadline_s, what)
    except BaseException:
        child.stop()
        raise
