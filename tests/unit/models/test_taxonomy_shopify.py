import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import TaxonomyError
from models.taxonomies import detect_format, import_taxonomy
from models.taxonomy import Taxonomy

FILES = {
    "VERSION": "2025-08\n",
    "data/categories/ha_home.yml": """---
- id: ha
  name: Home
  children:
  - ha-1
  - ha-2
  attributes: []
- id: ha-1
  name: 'No'
  children: []
  attributes:
  - color
  - trim_color
- id: ha-2
  name: No
  children: []
  attributes:
""",
    "data/categories/ap_pets.yml": """---
- id: ap
  name: Pets
  children: []
  attributes:
  - color
""",
    "data/attributes.yml": """---
base_attributes:
- id: 1
  name: Color
  friendly_id: color
  handle: color
  values:
  - color__red
  - color__blue
extended_attributes:
- name: Trim color
  handle: trim-color
  friendly_id: trim_color
  values_from: color
""",
    "data/values.yml": """---
- id: 11
  name: Red
  friendly_id: color__red
  handle: color__red
- id: 12
  name: Blue
  friendly_id: color__blue
  handle: color__blue
""",
}
SOURCES_JA = {
    "data/localizations/categories/ja.yml": """---
ja:
  categories:
    ha:
      name: 家
      context: Home
    ap:
      name: ペット
""",
    "data/localizations/attributes/ja.yml": """---
ja:
  attributes:
    color:
      name: 色
    trim_color:
      name: 縁の色
""",
    "data/localizations/values/ja.yml": """---
ja:
  values:
    color__red:
      name: 赤
""",
    "data/localizations/values/en.yml": "not read: [",
}
DIST_JA = {
    "dist/ja/categories.txt": """# Shopify Product Taxonomy
gid://shopify/TaxonomyCategory/ha   : 家
gid://shopify/TaxonomyCategory/ap   : ペット
""",
    "dist/ja/attributes.json": json.dumps(
        {
            "attributes": [
                {
                    "id": "gid://shopify/TaxonomyAttribute/1",
                    "name": "色",
                    "handle": "color",
                    "extended_attributes": [{"name": "縁の色", "handle": "trim-color"}],
                }
            ]
        }
    ),
    "dist/ja/attribute_values.json": json.dumps(
        {"values": [{"id": "gid://shopify/TaxonomyValue/11", "name": "赤"}]}
    ),
}

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a repository; a changed file replaces its namesake."""

    def written(files: dict[str, str]) -> Path:
        for name, text in {**FILES, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode(errors="surrogateescape"))
        return tmp_path

    return written


def problems(root: Path, locales: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(TaxonomyError) as caught:
        import_taxonomy("shopify", [root], locales)
    return [each.replace(f"{root}/", "") for each in caught.value.problems]


def test_tree_and_labels(write: Write) -> None:
    root = write({})
    assert detect_format(root) == "shopify"
    taxonomy = import_taxonomy("shopify", [root])
    assert (taxonomy.name, taxonomy.version, taxonomy.locale) == ("shopify", "2025-08", "en")
    assert taxonomy.departments == ("ap", "ha")
    assert taxonomy.leaves == ("ap", "ha-1", "ha-2")
    assert [category.id for category in taxonomy.path("ha-1")] == ["ha", "ha-1"]
    # Plain YAML text stays text: "No" is a name, not False.
    assert taxonomy.categories["ha-2"].name == taxonomy.categories["ha-1"].name == "No"
    assert taxonomy.relevant_label_ids("ha-1") == (
        "color=color__red",
        "color=color__blue",
        "trim_color=color__red",
        "trim_color=color__blue",
    )
    assert taxonomy.relevant_label_ids("ha-2") == ()
    assert taxonomy.label("trim_color=color__red")[1:] == (
        "trim_color",
        "Trim color",
        "color__red",
        "Red",
    )


@pytest.mark.parametrize("files", [SOURCES_JA, DIST_JA], ids=["localizations", "dist"])
def test_japanese_names(write: Write, files: dict[str, str]) -> None:
    taxonomy = import_taxonomy("shopify", [write(files)])
    assert taxonomy.locales == ("en", "ja")
    assert taxonomy.categories["ha"].name_in("ja") == "家"
    assert taxonomy.categories["ha-1"].name_in("ja") == "No"
    assert taxonomy.attributes["color"].names == {"ja": "色"}
    assert taxonomy.attributes["trim_color"].names == {"ja": "縁の色"}
    assert [value.names for value in taxonomy.attributes["color"].values] == [{"ja": "赤"}, {}]


def test_round_trip_through_the_projects_own_json(write: Write) -> None:
    taxonomy = import_taxonomy("shopify", [write(SOURCES_JA)])
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy
    assert b'"trim_color":true' in taxonomy.to_json()


def test_locales_are_chosen(write: Write) -> None:
    root = write(SOURCES_JA)
    assert import_taxonomy("shopify", [root], ["EN"]).locales == ("en", "ja")
    assert import_taxonomy("shopify", [root], ["JA"]).locales == ("en", "ja")
    assert problems(root, ("fr", "ja")) == [f"{root}: no names in the locale 'fr'; there are: ja"]


def test_every_problem_of_every_file_at_once(write: Write) -> None:
    root = write(
        {
            "VERSION": "\n",
            "data/categories/ap_pets.yml": """---
- id: ap
  name: Pets
  children: [ap-1, ap-9, ha-1]
  attributes: [color, color, shape]
- id: ap-1
  name: Cats
  children: [ap]
  attributes: red
- id: ap-1
  name: Dogs
- id: ap-2
  name:
- just text
""",
            "data/attributes.yml": """---
base_attributes:
- name: Color
  friendly_id: color
  values: [color__red, color__pink]
extended_attributes:
- name: Trim color
  friendly_id: trim_color
  values_from: colour
- name: No origin
  friendly_id: lost
""",
            "data/values.yml": """---
- {name: Red, friendly_id: color__red}
- {name: Rot, friendly_id: color__red}
- {friendly_id: color__blue}
""",
            "data/localizations/categories/ja.yml": """ja:
  categories:
    ha: {title: x}
    ha: {}
""",
            "data/localizations/values/ja.yml": "ja: {attributes: {}}\n",
        }
    )
    pets = "data/categories/ap_pets.yml"
    assert sorted(problems(root)) == sorted(
        [
            f"{root}: version is empty",
            f"{pets}: item 4: the file must hold mappings only",
            "data/localizations/categories/ja.yml:4: the key 'ha' occurs twice in one mapping",
            "data/localizations/categories/ja.yml:3: 'ha' has no name",
            "data/localizations/values/ja.yml: must map 'ja' to 'values' to the names by id",
            "data/values.yml:3: value 'color__red' is defined twice, first at data/values.yml:2",
            "data/values.yml:4: name of value 'color__blue' must be a string, got nothing",
            "data/attributes.yml:3: attribute 'color': "
            "value 'color__pink' is not defined in values.yml",
            "data/attributes.yml:7: values_from of 'trim_color': attribute 'colour' is not defined",
            "data/attributes.yml:10: values_from of 'lost' is empty",
            f"{pets}:2: 'ap' lists the child 'ap-9', which is not defined",
            "data/categories/ha_home.yml:2: the child 'ha-1' of 'ha' is already one of 'ap'",
            f"{pets}:2: category 'ap' lists an attribute twice",
            f"{pets}:2: attribute 'shape' of category 'ap' is not defined",
            f"{pets}:6: attributes must be a list",
            f"{pets}:10: category 'ap-1' is defined twice, first at {pets}:6",
            f"{pets}:12: 'ap-2' is not among the children of 'ap': missing parent",
            f"{pets}:12: name of category 'ap-2' must be a string, got nothing",
            f"{pets}:2: a cycle of 2 parents: ap -> ap-1 -> ap",
        ]
    )


def test_a_broken_file_hides_no_other_and_accuses_no_reference(write: Write) -> None:
    root = write(
        {
            "data/values.yml": "- {name: Red,\n- oops\n",
            "data/attributes.yml": "- not\n- a mapping\n",
            "data/categories/ha_home.yml": "---\n",
            "data/categories/ap_pets.yml": "- id: ap\n  name: Pets\n- id: ap\n  name: Again\n",
        }
    )
    found = problems(root)
    assert len(found) == 4
    assert found[0] == "data/categories/ha_home.yml: holds nothing"
    assert found[1] == "data/attributes.yml: must hold base_attributes and extended_attributes"
    assert found[2].startswith("data/values.yml:2: not YAML: ")
    assert found[3].startswith("data/categories/ap_pets.yml:3: category 'ap' is defined twice")


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    assert problems(tmp_path) == [
        "VERSION: cannot be read: [Errno 2] No such file or directory: 'VERSION'",
        "data/categories: holds no .yml file; give the folder of the Shopify taxonomy repository",
        "data/attributes.yml: cannot be read: No such file or directory",
        "data/values.yml: cannot be read: No such file or directory",
    ]


def test_bad_generated_names_are_named(write: Write) -> None:
    root = write(
        {
            "dist/ja/categories.txt": "gid://shopify/TaxonomyCategory/ha = 家\n",
            "dist/ja/attributes.json": '{"attributes": [',
            "dist/ja/attribute_values.json": '{"values": [3, {"id": "1", "name": "x"}, {"id": 1}]}',
        }
    )
    found = problems(root)
    assert found[0].startswith("dist/ja/categories.txt:1: not '<id> : <path>'")
    assert found[1].startswith("dist/ja/attributes.json: cannot be read: ")
    assert found[2:] == [
        f"dist/ja/attribute_values.json: values[{number}]: must have an id or a handle, and a name"
        for number in (0, 2)
    ]


@pytest.mark.parametrize("extended", ["5", "[5]", '[{"name": "no handle"}]'])
def test_bad_generated_extended_attributes_are_named(write: Write, extended: str) -> None:
    attribute = f'{{"id": "x/1", "name": "y", "extended_attributes": {extended}}}'
    root = write({**DIST_JA, "dist/ja/attributes.json": f'{{"attributes": [{attribute}]}}'})
    assert problems(root) == [
        "dist/ja/attributes.json: attributes[0]: must have an id or a handle, and a name"
    ]


def test_sources_and_formats() -> None:
    with pytest.raises(ValueError, match="unknown taxonomy format 'ebay'"):
        import_taxonomy("ebay", [Path("x")])
    with pytest.raises(ValueError, match="read from one source, got 2"):
        import_taxonomy("native", [Path("x"), Path("y")])
    with pytest.raises(ValueError, match="locales are chosen for shopify only"):
        import_taxonomy("google", [Path("x")], ["ja"])
    with pytest.raises(TaxonomyError, match=r"x\.csv: not a taxonomy that can be read"):
        detect_format(Path("x.csv"))


def test_broken_names_do_not_hide_broken_references(write: Write) -> None:
    root = write(
        {
            "data/localizations/categories/ja.yml": "ja: [\n",
            "data/categories/ap_pets.yml": "- {id: ap, name: Pets, attributes: [shape]}\n",
        }
    )
    found = problems(root)
    assert len(found) == 2
    assert found[0].startswith("data/localizations/categories/ja.yml:2: not YAML: ")
    assert found[1].endswith("attribute 'shape' of category 'ap' is not defined")
