"""Where a local Apache Kafka can come from on this machine; standard library only.

Set-up asks this module before there is a virtual environment, so that a run which needs a broker
can refuse at once: ``python -m worker.local.kafka_sources``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from worker.local.errors import ServiceMissing

__all__ = ["POM", "available_sources", "docker_answers", "jars_directory", "kafka_version"]

POM = Path(__file__).with_name("kafka-pom.xml")
_MAVEN = "{http://maven.apache.org/POM/4.0.0}"
_DOCKER_ANSWER_S = 20


def kafka_version() -> str:
    """The version of Apache Kafka that the pom file pins."""
    version = ET.parse(POM).findtext(f"{_MAVEN}properties/{_MAVEN}kafka.version")  # noqa: S314
    if not version:
        raise ServiceMissing(f"{POM} names no kafka.version")
    return version


def jars_directory(environ: Mapping[str, str]) -> Path:
    """Where the jars of the pinned version are kept: ``SORTIMENT_CACHE``, else ``~/.cache``."""
    named = environ.get("SORTIMENT_CACHE")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    cache = Path(named).expanduser() if named else home / ".cache" / "sortiment"
    return cache / f"kafka-{kafka_version()}"


def available_sources(
    environ: Mapping[str, str],
) -> tuple[Literal["given", "maven", "docker"], ...]:
    """Those of ``given``, ``maven`` and ``docker`` that can be tried here, in the order to try.

    Raises:
        ServiceMissing: none; says how to get one.
    """
    if environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return ("given",)
    sources: list[Literal["maven", "docker"]] = []
    if jars_directory(environ).is_dir() or shutil.which("mvn", path=environ.get("PATH")):
        sources.append("maven")
    if docker_answers(environ):
        sources.append("docker")
    if not sources:
        raise ServiceMissing(
            "no Apache Kafka here: install Maven (`apt-get install maven`, `brew install maven`), "
            "or start Docker, or set KAFKA_BOOTSTRAP_SERVERS to a broker of yours"
        )
    return tuple(sources)


def docker_answers(environ: Mapping[str, str]) -> bool:
    """Whether there is a Docker client whose engine answers."""
    docker = shutil.which("docker", path=environ.get("PATH"))
    if docker is None:
        return False
    try:
        asked = subprocess.run(
            [docker, "info", "--format", "{{.ServerVersion}}"],
            env=dict(environ),
            capture_output=True,
            timeout=_DOCKER_ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


if __name__ == "__main__":
    try:
        available_sources(os.environ)
    except ServiceMissing as missing:
        sys.stderr.write(f"{missing}\n")
        sys.exit(1)
