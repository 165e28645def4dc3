"""Ties a child process to the process that started it; run as a script, standard library only.

``python -I -S tether.py GRACE_S OUT_PATH LOG_PATH [--remove DIR]... -- COMMAND...``

The starter holds the other end of standard input. Lines on it: a signal number for the child, or
``keep``, after which an end of input means an orderly stop. An end of input without ``keep`` means
that the starter died, by whatever signal: the child is ended and the directories are removed.
Standard output gets one line, the child's process id. The exit status is the child's, 128 + n
where signal n ended it.

The system's own parent-death signal alone would not do: it fires when the *thread* that started
the child ends, and exists on Linux only. Here it ties the child to this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

__all__: list[str] = []

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PARENT_CHECK_S = 1.0


class _Tether:
    def __init__(self, grace_s: float, remove: list[Path]) -> None:
        self.grace_s = grace_s
        self.remove = remove
        self.keep = False
        self.orphaned = False
        self.child: subprocess.Popen[bytes] | None = None

    def run(self, command: list[str], out_path: str, log_path: str) -> int:
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        here = os.getpid()

        def die_with_tether() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != here:
                    os._exit(1)

        # The child may wait on its standard input for an end: it comes when this process ends.
        child_stdin, _held_open = os.pipe()
        with Path(log_path).open("ab") as log, Path(out_path).open("ab") as out:
            self.child = subprocess.Popen(
                command,
                stdin=child_stdin,
                stdout=log if out_path == log_path else out,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_tether,  # safe: no thread runs yet
            )
        sys.stdout.write(f"{self.child.pid}\n")
        sys.stdout.flush()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self.end_child())
        threading.Thread(target=self.obey, args=(os.getppid(),), daemon=True).start()
        status = self.child.wait()
        self.signal_group(signal.SIGKILL)  # whatever the child itself started
        if self.orphaned:
            for directory in self.remove:
                shutil.rmtree(directory, ignore_errors=True)
        return status if status >= 0 else 128 - status

    def obey(self, parent: int) -> None:
        pending = b""
        while os.getppid() == parent:
            # A process forked by the starter may hold the pipe open: look at the parent too.
            if not select.select([0], [], [], _PARENT_CHECK_S)[0]:
                continue
            read = os.read(0, 4096)
            if not read:
                break
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                if line == b"keep":
                    self.keep = True
                else:
                    self.signal_child(signal.Signals(int(line)))
        self.orphaned = not self.keep
        self.end_child()

    def end_child(self) -> None:
        self.signal_child(signal.SIGTERM)
        killer = threading.Timer(self.grace_s, self.signal_group, [signal.SIGKILL])
        killer.daemon = True
        killer.start()

    def signal_child(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, number)


def _main(arguments: list[str]) -> int:
    split = arguments.index("--")
    grace_s, out_path, log_path, *rest = arguments[:split]
    remove = [Path(value) for flag, value in zip(rest[::2], rest[1::2], strict=True) if flag]
    return _Tether(float(grace_s), remove).run(arguments[split + 1 :], out_path, log_path)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
