"""Make the virtual environment `.venv` from `requirements.lock`, where it is not already there.

Standard library only, and written so that an older Python can at least say what it lacks:

    python3 scripts/setup.py [--needs-kafka]

Does nothing when the lock, pyproject.toml and the Python are those of the last finished run. After
a run that was interrupted while it installed, the next begins from nothing; of two at once, one
waits for the other.
"""

# ruff: noqa: T201 - it prints to the person who runs it
from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".sortiment-stamp"
UNFINISHED = VENV / ".sortiment-unfinished"
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"

SUPPORTED = ((3, 11), (3, 12), (3, 13))
GB = 10**9
# Measured on Linux with the lock of the first release; PyTorch's wheels there carry CUDA.
VENV_BYTES = int(6.8 * GB) if sys.platform == "linux" else 2 * GB
DOWNLOAD_BYTES = int(3.4 * GB) if sys.platform == "linux" else 1 * GB
SHOWN_LINES = 25


class SetupError(Exception):
    """Why set-up cannot go on, and what to do."""


def main(arguments: list[str]) -> int:
    try:
        python = find_python()
        if "--needs-kafka" in arguments:
            require_kafka(python)
        with only_one():
            set_up(python)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def find_python() -> str:
    """A Python of a supported version: this one, else one on PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in reversed(SUPPORTED):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    wanted = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    raise SetupError(
        f"Python {wanted} is needed; {sys.executable} is {sys.version.split()[0]} and none of "
        "them is on PATH. Install one, or name it: make PYTHON=/path/to/python3.11 ..."
    )


def require_kafka(python: str) -> None:
    """Refuse before anything slow where no broker can be had."""
    asked = subprocess.run(
        [python, "-m", "worker.local.kafka_sources"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise SetupError(f"this needs a real Kafka: {asked.stderr.strip()}")


@contextlib.contextmanager
def only_one():
    """Held by one set-up of this checkout at a time; released however the process ends."""
    state = ROOT / ".run"
    state.mkdir(exist_ok=True)
    with (state / "setup.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is running here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def set_up(python: str) -> None:
    wanted = stamp(python)
    if STAMP.is_file() and STAMP.read_text() == wanted and venv_runs():
        return
    if UNFINISHED.exists() or (VENV.exists() and not venv_runs()):
        print("set-up: removing the .venv of an interrupted run or another Python")
        shutil.rmtree(VENV)
    fresh = not VENV.exists()
    if fresh:
        announce()
        require_venv_module(python)
        run([python, "-m", "venv", str(VENV)], "make the virtual environment")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    pip += ["--no-deps"]
    install_lock([*pip, "--require-hashes", "--requirement", str(LOCK)])
    run([*pip, "--no-build-isolation", "--quiet", "--editable", str(ROOT)], "install the project")
    STAMP.write_text(wanted)
    print("set-up: done")


def stamp(python: str) -> str:
    """What the environment is made from."""
    if VENV.exists() and venv_runs():
        python = str(PYTHON)
    version = output([python, "-c", "import sys; print(sys.version_info[:2])"])
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (LOCK, PROJECT)]
    return "\n".join([version, *parts, str(ROOT), ""])


def venv_runs() -> bool:
    """Whether .venv has a Python of a supported version that starts."""
    try:
        version = output([str(PYTHON), "-c", "import sys, pip; print(sys.version_info[:2])"])
    except (OSError, subprocess.CalledProcessError):
        return False
    return version in [str(supported) for supported in SUPPORTED]


def announce() -> None:
    """Say what set-up will take, and refuse where it is not there."""
    temporary = Path(tempfile.gettempdir())
    print(
        f"set-up: makes .venv from requirements.lock. It takes about {VENV_BYTES / GB:.1f} GB of "
        f"disk, {DOWNLOAD_BYTES / GB:.1f} GB to download (in {temporary} meanwhile), some minutes."
    )
    needs = {ROOT: VENV_BYTES}
    if temporary.stat().st_dev == ROOT.stat().st_dev:
        needs[ROOT] += DOWNLOAD_BYTES
    else:
        needs[temporary] = DOWNLOAD_BYTES
    for place, need in needs.items():
        free = shutil.disk_usage(place).free
        if free < need:
            raise SetupError(
                f"{place} has {free / GB:.1f} GB free and {need / GB:.1f} GB are needed; free some"
                + (", or set TMPDIR to a roomier folder" if place == temporary else "")
            )


def require_venv_module(python: str) -> None:
    probe = subprocess.run(
        [python, "-c", "import ensurepip, venv"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        version = output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        raise SetupError(
            f"{python} lacks the modules venv and ensurepip; on Debian or Ubuntu: "
            f"apt-get install python{version}-venv"
        )


def install_lock(command: list[str]) -> None:
    """Run pip, showing a line of progress in place of its hundreds."""
    total = sum("==" in line for line in LOCK.read_text().splitlines() if line[:1].isalnum())
    tail: collections.deque[str] = collections.deque(maxlen=SHOWN_LINES)
    collected = 0
    with subprocess.Popen(
        command,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        for line in pip.stdout:
            tail.append(line.rstrip())
            word, _, rest = line.strip().partition(" ")
            if word == "Collecting":
                collected += 1
                show(f"package {collected} of at most {total}: {rest.split()[0]}")
            elif word == "Installing":
                # A half-written package looks installed to pip: such a run must be known.
                UNFINISHED.touch()
                show(f"installing {collected} packages")
    show("")
    if pip.returncode != 0:
        raise SetupError(explain("install the packages of requirements.lock", "\n".join(tail)))
    UNFINISHED.unlink(missing_ok=True)


def show(text: str) -> None:
    """One line that the next one replaces; on a pipe only what is worth a line of a log."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text[:79]}", end="", flush=True)
    elif text.startswith("installing"):
        print(f"set-up: {text}", flush=True)


def run(command: list[str], what: str) -> None:
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise SetupError(explain(what, "\n".join(ran.stdout.splitlines()[-SHOWN_LINES:])))


def explain(what: str, text: str) -> str:
    signs = ("NewConnectionError", "Temporary failure in name", "Read timed out", "ProxyError")
    hint = ""
    if any(sign in text for sign in signs):
        hint = "\nThe package index cannot be reached: is there a network, a proxy to be set?"
    elif "No space left" in text:
        hint = "\nThe disk is full: free some, or set TMPDIR to a roomier folder."
    return f"cannot {what}:\n{text}{hint}"


def output(command: list[str]) -> str:
    return subprocess.run(
        command,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout.strip()


def clean_environment() -> dict[str, str]:
    """This environment without what would lead another Python astray."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
