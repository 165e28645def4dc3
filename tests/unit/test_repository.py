"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kernels

ROOT = Path(__file__).parents[2]
CODE = ("kernels", "models", "training", "worker", "demo", "benchmarks", "tests", "scripts")
PACKAGES = ("kernels", "models", "training", "worker")
MAX_LINES = 600
MANY_LINES = 400

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("kernels/*.md")])


def locked() -> dict[str, list[str]]:
    """Versions by name: several where they differ by Python or platform."""
    versions = defaultdict(list)
    for line in LOCK.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            versions[canonicalize_name(match[1])].append(match[2])
    return versions


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    return [Requirement(text) for text in asked]


def test_files_stay_readable() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {str(path): lines for path, lines in lengths.items() if lines > MANY_LINES}
    print(f"beyond {MANY_LINES} lines, think of a split: {long}")  # noqa: T201
    assert max(lengths.values()) <= MAX_LINES, long


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [path for folder in CODE for path in (ROOT / folder).rglob("util*.py")]


def test_kernels_is_ours() -> None:
    assert kernels.__file__ is not None
    assert Path(kernels.__file__).parent == ROOT / "kernels"
    assert "kernels" not in locked()
    assert "kernels" not in {canonicalize_name(asked.name) for asked in requirements()}


def test_packages_are_listed_one_by_one() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert sorted(listed) == sorted(there)


def test_lock_names_no_index_and_hashes_every_pin() -> None:
    assert not re.findall(r"https?:|--index|--extra-index|--find-links|--trusted", LOCK)
    pins = [block for block in re.split(r"\n(?=\S)", LOCK) if block[:1].isalnum()]
    assert len(pins) == sum(len(versions) for versions in locked().values())
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []


@pytest.mark.parametrize("asked", requirements(), ids=str)
def test_lock_is_in_step_with_the_project(asked: Requirement) -> None:
    versions = locked()[canonicalize_name(asked.name)]
    assert versions, "not in requirements.lock: run `make lock`"
    unfit = [version for version in versions if not asked.specifier.contains(version)]
    assert unfit == [], f"pinned {unfit}: run `make lock`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)", document.read_text())
    }
    assert named - targets == set()
