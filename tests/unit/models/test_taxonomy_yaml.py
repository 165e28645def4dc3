import pytest
import yaml

from models.taxonomies.yaml_events import BadYaml, YamlMap, parse_yaml


def test_equals_the_base_loader() -> None:
    text = """---
a: [1, 'two', "three", {four: 5}]
b:
- - deep
  - {}
- []
- No
c: |
  lines
  kept
"""
    assert parse_yaml(text.encode(), []) == yaml.load(text, yaml.BaseLoader)  # noqa: S506


def test_only_plain_nulls_are_null() -> None:
    assert parse_yaml(b"{a: , b: ~, c: null, d: 'null', e: \"\", f: No}", []) == {
        "a": None,
        "b": None,
        "c": None,
        "d": "null",
        "e": "",
        "f": "No",
    }
    assert parse_yaml(b"", []) is None
    assert parse_yaml(b"# nothing\n", []) is None


def test_mappings_know_their_line() -> None:
    document = parse_yaml(b"---\n- a: 1\n\n- b: {c: 2}\n", [])
    assert isinstance(document, list)
    second = document[1]
    assert isinstance(second, YamlMap)
    assert second.line == 4


def test_keys_that_occur_twice_are_told_and_the_first_counts() -> None:
    twice: list[tuple[int, str]] = []
    assert parse_yaml(b"a: 1\nb: 2\na: {a: 3}\n", twice) == {"a": "1", "b": "2"}
    assert twice == [(3, "a")]


@pytest.mark.parametrize(
    ("data", "line", "text"),
    [
        (b"a: 1\nb: [", 3, "not YAML"),
        (b"a: \xff", 1, "not YAML: invalid leading UTF-8 octet"),
        (b"a: &x 1", 1, "tags and anchors"),
        (b"a: &x [1]", 1, "tags and anchors"),
        (b"\na: *x", 2, "aliases"),
        (b"a: !!python/object/apply:os.system [ls]", 1, "tags and anchors"),
        (b"a: !!int 3", 1, "tags and anchors"),
        (b"? [a]\n: 1", 1, "a key must be text"),
        (b"a\n---\nb", 2, "a second document"),
        (b"[" * 40 + b"]" * 40, 1, "nested deeper than 32"),
        (b"[" * 100_000, 1, "nested deeper than 32"),
    ],
)
def test_what_is_refused(data: bytes, line: int, text: str) -> None:
    with pytest.raises(BadYaml, match=text) as caught:
        parse_yaml(data, [])
    assert caught.value.line == line
