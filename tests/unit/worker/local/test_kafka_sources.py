from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.local.errors import ServiceMissing
from worker.local.java import find_java
from worker.local.kafka_jars import kafka_jars
from worker.local.kafka_sources import (
    available_sources,
    docker_answers,
    jars_directory,
    kafka_version,
)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": f"{home / 'bin'}:/usr/bin:/bin", "JAVA_HOME": str(home)}


def test_version_is_read_from_the_pom() -> None:
    assert tuple(int(part) for part in kafka_version().split(".")) >= (4, 1, 0)


def test_cache_lies_in_home_or_where_it_is_named(tmp_path: Path) -> None:
    version = kafka_version()
    assert jars_directory({"HOME": "/h"}) == Path(f"/h/.cache/sortiment/kafka-{version}")
    named = {"HOME": "/h", "SORTIMENT_CACHE": str(tmp_path)}
    assert jars_directory(named) == tmp_path / f"kafka-{version}"


def test_order_is_given_then_maven_then_docker(tmp_path: Path) -> None:
    only = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    with pytest.raises(ServiceMissing, match=r"Maven.*Docker.*KAFKA_BOOTSTRAP_SERVERS"):
        available_sources(only)
    program(tmp_path / "bin", "docker", "echo 28")
    assert available_sources(only) == ("docker",)
    program(tmp_path / "bin", "mvn", "true")
    assert available_sources(only) == ("maven", "docker")
    assert available_sources(only | {"KAFKA_BOOTSTRAP_SERVERS": "b:9092"}) == ("given",)


def test_jars_at_hand_need_no_maven(tmp_path: Path) -> None:
    only = {"HOME": str(tmp_path), "PATH": ""}
    jars_directory(only).mkdir(parents=True)
    assert available_sources(only) == ("maven",)


def test_docker_without_an_engine_does_not_count(tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", "exit 1")
    assert not docker_answers({"PATH": str(tmp_path / "bin")})


def test_program_refuses_with_a_message(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "worker.local.kafka_sources"],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 1
    assert "install Maven" in asked.stderr


_FETCH = """
for argument; do case $argument in -DoutputDirectory=*) out=${argument#*=} ;; esac; done
mkdir "$out" && touch "$out/kafka_2.13-0.jar"
echo run >> "$HOME/runs"
"""


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    program(tmp_path / "bin", "mvn", _FETCH)
    said: list[str] = []
    for _ in range(2):
        jars = kafka_jars(environment(tmp_path), said.append)
        assert [jar.name for jar in jars.iterdir()] == ["kafka_2.13-0.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"
    assert len(said) == 1
    assert [path.name for path in jars.parent.iterdir()] == [jars.name]


@pytest.mark.parametrize("script", ["echo no route to host; exit 1", "echo no route to host"])
def test_failed_fetch_shows_mavens_words_and_leaves_nothing(tmp_path: Path, script: str) -> None:
    program(tmp_path / "bin", "mvn", script)
    with pytest.raises(ServiceMissing, match=r"(?s)could not fetch.*no route to host"):
        kafka_jars(environment(tmp_path), lambda _: None)
    assert not any(jars_directory(environment(tmp_path)).parent.iterdir())


def test_java_home_comes_first_and_an_old_one_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "java", "echo 'openjdk version \"21.0.2\"' >&2")
    assert find_java({"JAVA_HOME": str(tmp_path)}).version == 21
    program(tmp_path / "bin", "java", "echo 'java version \"1.8.0_402\"' >&2")
    found = find_java({"JAVA_HOME": str(tmp_path), "PATH": os.defpath})
    assert found.version >= 17
    assert found.program != tmp_path / "bin" / "java"
