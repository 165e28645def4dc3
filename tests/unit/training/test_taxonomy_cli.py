import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models.taxonomy import load_taxonomy
from training.taxonomy_cli import taxonomy

GOOGLE = "# Google_Product_Taxonomy_Version: 2021-09-21\n1 - Pets\n2 - Pets > Cats\n"
NATIVE = {
    "name": "[red]shop",
    "version": "3",
    "categories": [
        {"id": "a", "name": "A", "parent": None},
        {"id": "b", "name": "B", "parent": "a"},
        {"id": "c", "name": "C", "parent": "a"},
    ],
    "attributes": [{"name": "Color", "values": ["red", "blue"]}],
    "relevant": {"b": {"Color": True}},
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(taxonomy, [str(each) for each in arguments])


@pytest.fixture
def google(tmp_path: Path) -> Path:
    path = tmp_path / "taxonomy-with-ids.en-US.txt"
    path.write_text(GOOGLE)
    return path


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "native.json"
    path.write_text(json.dumps(NATIVE))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.json"
    categories = [{"id": "a", "name": "A", "parent": "zz"}, {"id": "b", "name": "B", "parent": "b"}]
    path.write_text(json.dumps({**NATIVE, "categories": categories}))
    return path


def test_import_writes_the_projects_own_json(google: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json.gz"
    result = run("import", "google", google, "--out", out)
    assert result.exit_code == 0, result.output
    assert "google 2021-09-21, 2 categories, 1 leaves" in result.stdout
    assert load_taxonomy(out).leaves == ("2",)


def test_import_of_a_bad_taxonomy_writes_nothing(bad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run("import", "native", bad, "--out", out)
    assert result.exit_code == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "ebay", "x", "--out", "x.json"],
        ["import", "google", "x", "--out", "x.csv"],
        ["import", "google", "x", "--out", "/nowhere/at/all/x.json"],
        ["import", "google", "x"],
        ["import", "native", "x", "y", "--out", "x.json"],
        ["import", "google", "x", "--locale", "ja", "--out", "x.json"],
        ["validate"],
        ["stats"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_stats(native: Path) -> None:
    result = run("stats", native)
    assert result.exit_code == 0, result.output
    assert "[red]shop 3" in result.stdout
    rows = dict(
        (cell.strip() for cell in line.strip("│\n ").split("│"))
        for line in result.stdout.splitlines()
        if line.startswith("│")
    )
    assert rows["leaves"] == "2"
    assert rows["labels (attribute, value)"] == "2"
    assert rows["triples (leaf, attribute, value)"] == "2"
    assert rows["relevant labels per leaf, mean"] == "1.0"
    assert rows["locales"] == "none named"


def test_validate_prints_every_problem_of_every_file(
    native: Path, google: Path, bad: Path, tmp_path: Path
) -> None:
    result = run("validate", native, bad, google, tmp_path / "absent.json")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{native}: [red]shop 3, 3 categories, 2 leaves, 1 attributes, 2 labels",
        f"{google}: google 2021-09-21, 2 categories, 1 leaves, 0 attributes, 0 labels",
    ]
    assert result.stderr.splitlines() == [
        f"{bad}: categories[0]: parent 'zz' of 'a' is not defined",
        f"{bad}: categories[1]: a cycle of 1 parents: b -> b",
        f"{tmp_path}/absent.json: cannot be read: [Errno 2] No such file or directory: "
        f"'{tmp_path}/absent.json'",
        "3 problems",
    ]


def test_validate_of_good_files_exits_0(native: Path, google: Path) -> None:
    assert run("validate", native, google).exit_code == 0


def test_stats_of_a_bad_file_exits_1(bad: Path) -> None:
    result = run("stats", bad)
    assert result.exit_code == 1
    assert "2 problems" in result.stderr
