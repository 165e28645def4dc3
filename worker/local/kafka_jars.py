"""Apache Kafka's jars, fetched once by Maven into a cache of our own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.local.errors import ServiceMissing
from worker.local.java import find_java
from worker.local.kafka_sources import POM, jars_directory, kafka_version

__all__ = ["kafka_jars"]

# 44 MB; a slow line needs minutes, a dead one must not hang a pipeline.
_FETCH_DEADLINE_S = 600
_SHOWN_LINES = 40


def kafka_jars(environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """The directory with the jars of the pinned version; a second call needs no network.

    The directory appears whole or not at all; who comes while another fetches waits for him.

    Raises:
        ServiceMissing: Maven is not there or cannot fetch; with the end of its output.
    """
    target = jars_directory(environ)
    if target.is_dir():
        return target
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise ServiceMissing("Maven (mvn) is not on PATH: install it, or use Docker")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent):
        if target.is_dir():  # somebody else was faster
            return target
        say(f"fetching Apache Kafka {kafka_version()} by Maven (44 MB, once) into {target}")
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as scratch:
            jars = Path(scratch, "jars")
            _run_maven(maven, jars, environ)
            jars.rename(target)
    return target


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    # Not every Maven bears another one that writes into the same repository.
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _run_maven(maven: str, jars: Path, environ: Mapping[str, str]) -> None:
    command = [maven, "--batch-mode", "--no-transfer-progress", "--file", str(POM)]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    command += [f"-DoutputDirectory={jars}"]
    env = dict(environ)
    if shutil.which("java", path=env.get("PATH")) is None and not env.get("JAVA_HOME"):
        env["JAVA_HOME"] = str(find_java(environ).program.parent.parent)
    try:
        ran = subprocess.run(
            command,
            env=env,
            cwd=jars.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_FETCH_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceMissing(f"Maven did not finish within {_FETCH_DEADLINE_S} s") from None
    if ran.returncode != 0 or not any(jars.glob("kafka_2.13-*.jar")):
        shown = "\n".join(f"  | {line}" for line in ran.stdout.splitlines()[-_SHOWN_LINES:])
        raise ServiceMissing(
            f"Maven could not fetch Apache Kafka {kafka_version()} "
            f"(exit status {ran.returncode}):\n{shown}"
        )
