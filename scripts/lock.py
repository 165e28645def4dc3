"""Compile `requirements.lock` from pyproject.toml: every platform, with hashes, no index address.

Pins that still fit stay; `--upgrade` or `--upgrade-package NAME` moves them.
"""

# ruff: noqa: T201 - it prints to the person who runs it
from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.8"  # another version may write another lock from the same pins
TOOL = ROOT / ".run" / f"uv-{UV_VERSION}"


def main(arguments: list[str]) -> int:
    if not (TOOL / "bin" / "uv").exists():
        # uv is a tool for this one command: not in the lock that it compiles.
        venv.create(TOOL, clear=True, with_pip=True)
        pip = [str(TOOL / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", f"uv=={UV_VERSION}"], check=True)
    command = [str(TOOL / "bin" / "uv"), "pip", "compile", "pyproject.toml", "--all-extras"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-annotate", "--no-header", "--quiet"]
    command += ["--output-file", "requirements.lock", *arguments]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == 0:
        print("requirements.lock is up to date with pyproject.toml")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
