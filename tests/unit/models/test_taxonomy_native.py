import gzip
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from models.errors import TaxonomyError
from models.taxonomies import native
from models.taxonomies.native import parse_native, read_native, write_native
from models.taxonomy import Taxonomy, load_taxonomy


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "n",
        "version": "1",
        "categories": [
            {"id": "a", "name": "A", "parent": None},
            {"id": "b", "name": "B", "parent": "a"},
        ],
        "attributes": [{"name": "Color", "values": ["red", "blue"]}],
        "relevant": {"b": {"Color": ["red"]}},
        **changes,
    }


def problems(data: bytes | dict[str, Any]) -> list[str]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.from_json(raw, "t.json")
    return list(caught.value.problems)


def test_every_problem_at_once() -> None:
    found = problems(
        document(
            version="",
            categories=[
                {"id": "a", "name": "A", "parent": "c"},
                {"id": "b", "name": "B", "parent": "a"},
                {"id": "c", "name": "C", "parent": "b"},
                {"id": "c", "name": "C again", "parent": None},
                {"id": "d", "name": "D", "parent": "nowhere"},
                {"id": 7, "name": "E", "parent": None},
                "not an object",
            ],
            attributes=[
                {"name": "Color", "values": ["red", "blue", "red"]},
                {"name": "Color", "values": []},
                {"name": "Size", "values": "XL"},
                {"name": "Pattern", "values_from": "nobody"},
                {"name": "X", "values_from": "Y"},
                {"name": "Y", "values_from": "X"},
            ],
            relevant={
                "b": {"Color": ["red", "pink"], "Shape": True, "Size": 3},
                "zz": {"Color": ["blue", "blue"]},
                "a": ["Color"],
            },
        )
    )
    assert found == [
        "t.json: version is empty",
        "t.json: categories[6]: must be an object",
        "t.json: categories[3]: category 'c' is defined twice, first at t.json: categories[2]",
        "t.json: categories[5]: category id must be a string, got a number",
        "t.json: attributes[0]: attribute 'Color' has the value 'red' twice",
        "t.json: attributes[1]: attribute 'Color' is defined twice, first at t.json: attributes[0]",
        "t.json: attributes[2]: values of attribute 'Size' must be a list",
        "t.json: relevant['b']: attribute 'Size' must have a list of value ids, "
        "or true for all of its values, got a number",
        "t.json: relevant['zz']: attribute 'Color' lists 'blue' twice",
        "t.json: relevant['a']: must map attributes to values, got a list",
        "t.json: categories[4]: parent 'nowhere' of 'd' is not defined",
        "t.json: attributes[3]: values_from of 'Pattern': attribute 'nobody' is not defined",
        "t.json: attributes[4]: values_from of 'X' leads back to 'X'",
        "t.json: attributes[5]: values_from of 'Y' leads back to 'Y'",
        "t.json: relevant: category 'b': 'pink' is not a value of attribute 'Color'",
        "t.json: relevant: attribute 'Shape' of category 'b' is not defined",
        "t.json: relevant: category 'zz' is not defined",
        "t.json: categories[0]: a cycle of 3 parents: a -> c -> b -> a",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{\n "name": "n",\n oops}', "t.json:3: not JSON: .*column 2"),
        (b"", "t.json:1: not JSON"),
        (b"\xff\xfe", "t.json: not UTF-8: invalid start byte at byte 0"),
        (b"[" * 100_000, "t.json: nested too deeply"),
        (b"[]", "t.json: the file must hold one JSON object"),
        (b'{"name": "n", "name": "m"}', "t.json: the key 'name' occurs twice in one object"),
        (b'{"name": ' + b"1" * 5000 + b"}", "t.json: not JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_taxonomy_at_all(data: bytes, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy.from_json(data, "t.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "t.json: name must be a string, got nothing"),
        ({"version": 3}, "t.json: version must be a string, got a number"),
        ({"locale": "E N"}, "t.json: locale 'E N' is not a tag"),
        ({"locale": 5}, "t.json: locale 5 is not a tag"),
        ({"relevent": {}}, "t.json: unknown field 'relevent'"),
        ({"categories": {}}, "t.json: categories must be a list of objects"),
        ({"categories": []}, "t.json: holds no category"),
        ({"relevant": []}, "t.json: relevant must map category ids"),
        ({"categories": [{"id": "a\n", "name": "A"}]}, "holds a control character"),
        ({"categories": [{"id": "a", "name": "\ud800"}]}, "a lone surrogate"),
        ({"categories": [{"id": "a", "name": " "}]}, "name of category 'a' is empty"),
        ({"categories": [{"id": "a", "name": "A", "parent": 4}]}, "parent of 'a' must be a string"),
        ({"categories": [{"id": "a", "name": "A", "parent": "a"}]}, "a cycle of 1 parents: a -> a"),
        ({"categories": [{"id": "a", "name": "A", "names": []}]}, "names must map locales"),
        ({"categories": [{"id": "a", "name": "A", "names": {"!": "x"}}]}, "'!' is not a locale"),
        (
            {"categories": [{"id": "a", "name": "A", "names": {"ja": "x", "JA": "y"}}]},
            "locale 'ja' occurs twice",
        ),
        ({"attributes": [{"name": "C", "values": [1]}]}, "value id must be a string, got a number"),
        ({"attributes": [{"values": []}]}, "attribute id must be a string, got nothing"),
        (
            {"attributes": [{"name": "C", "values": ["x"], "values_from": "D"}]},
            "attribute 'C' has both values and values_from",
        ),
    ],
)
def test_each_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    assert any(message in each for each in problems(document(**changes)))


def test_a_long_cycle_is_cut_in_the_message() -> None:
    size = 5_000
    ring = [{"id": f"c{n}", "name": "c", "parent": f"c{(n + 1) % size}"} for n in range(size)]
    found = problems(document(categories=ring, relevant={}))
    assert len(found) == 1
    assert "a cycle of 5000 parents: c0 -> c1" in found[0]
    assert len(found[0]) < 200


def test_each_cycle_is_reported_once() -> None:
    parents = {"a": "b", "b": "a", "c": "a", "d": "e", "e": "d"}
    nodes = [{"id": each, "name": each, "parent": parent} for each, parent in parents.items()]
    found = problems(document(categories=nodes, relevant={}))
    assert [each.partition("cycle of ")[2] for each in found] == [
        "2 parents: a -> b -> a",
        "2 parents: d -> e -> d",
    ]


def test_round_trip_keeps_ids_names_and_shared_values(tmp_path: Path) -> None:
    full = document(
        locale="en",
        categories=[{"id": "a", "name": "A", "parent": None, "names": {"ja": "エー"}}],
        attributes=[
            {
                "id": "c",
                "name": "Color",
                "names": {"ja": "色"},
                "values": ["red", {"id": "b", "name": "Blue"}],
            },
            {"id": "d", "name": "Dial", "values_from": "e"},
            {"id": "e", "name": "Edge", "values_from": "c"},
        ],
        relevant={"a": {"c": ["b"], "d": True}},
    )
    taxonomy = Taxonomy.from_json(json.dumps(full).encode())
    assert taxonomy.attributes["d"].values == taxonomy.attributes["c"].values
    assert json.loads(taxonomy.to_json()) == full
    for name in ("t.json", "t.json.gz"):
        write_native(taxonomy, tmp_path / name)
        assert load_taxonomy(tmp_path / name) == taxonomy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "t.json.gz"]


def test_the_plain_form_needs_neither_ids_nor_locales() -> None:
    taxonomy = Taxonomy.from_json(json.dumps(document()).encode())
    assert taxonomy.locale == ""
    assert taxonomy.locales == ()
    assert json.loads(taxonomy.to_json()) == document()


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"absent\.json: cannot be read"):
        load_taxonomy(tmp_path / "absent.json")
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(TaxonomyError, match=r"broken\.json\.gz: cannot be read"):
        load_taxonomy(str(broken))
    broken.write_bytes(gzip.compress(json.dumps(document()).encode())[:-20])
    with pytest.raises(TaxonomyError, match=r"broken\.json\.gz: cannot be read"):
        load_taxonomy(broken)


def test_a_file_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.taxonomies.native._MAX_BYTES", 1000)
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 1_000_000))
    with pytest.raises(TaxonomyError, match="more than 1000 bytes"):
        load_taxonomy(bomb)


def test_what_hostile_files_cost() -> None:
    # Each took hours where the work grew with the square or the cube.
    keys = ",".join(f'"c{number}": true' for number in range(200_000))
    document = f'{{"name": "x", "version": "1", "relevant": {{{keys}, "c0": true}}}}'
    with pytest.raises(TaxonomyError, match="the key 'c0' occurs twice"):
        parse_native(document.encode(), "t.json")
    chain = [
        {"id": f"a{number}", "name": "A", "values_from": f"a{number + 1}"}
        for number in range(20_000)
    ]
    last = {"id": "a20000", "name": "A", "values": [{"id": "v", "name": "V"}]}
    made = {"name": "x", "version": "1", "categories": [{"id": "c", "name": "C"}]}
    whole = {**made, "attributes": [*chain, last], "relevant": {"c": {"a0": True}}}
    taxonomy = parse_native(json.dumps(whole).encode(), "t.json")
    assert taxonomy.label_ids()[0] == "a0=v"


def test_packed_and_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_MAX_BYTES", 10_000)
    bomb = gzip.compress(b" " * 1_000_000)
    with pytest.raises(TaxonomyError, match="more than 10000 bytes, which no taxonomy has"):
        read_native(BytesIO(bomb), "t.json.gz", packed=True)
