import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.labels import LabelSpace, Masks, pack_mask, unpack_mask
from models.taxonomy import Taxonomy, compile_mask, compile_masks, label_id

NAMES = st.text(st.sampled_from("ab%=>3D 色"), min_size=1, max_size=4).filter(str.strip)


@st.composite
def masks_of(draw: st.DrawFn) -> tuple[list[int], int]:
    num_labels = draw(st.integers(0, 2**32 - 1))
    if num_labels == 0:
        return [], 0
    rows = draw(st.sets(st.integers(0, num_labels - 1), max_size=40))
    return sorted(rows), num_labels


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    # A parent stands before its child, so the tree has no cycle.
    parents = [draw(st.sampled_from([None, *ids[:n]])) for n in range(len(ids))]
    values = draw(st.dictionaries(NAMES, st.lists(NAMES, max_size=4, unique=True), max_size=5))
    relevant = {
        each: {
            name: draw(st.one_of(st.just(True), st.lists(st.sampled_from(known), unique=True)))
            if known
            else True
            for name, known in values.items()
            if draw(st.booleans())
        }
        for each in ids
    }
    return {
        "name": "n",
        "version": "1",
        "categories": [
            {"id": each, "name": each, "parent": parent}
            for each, parent in zip(ids, parents, strict=True)
        ],
        "attributes": [{"name": name, "values": known} for name, known in values.items()],
        "relevant": relevant,
    }


@given(masks_of())
def test_packed_masks_come_back(mask: tuple[list[int], int]) -> None:
    rows, num_labels = mask
    packed = pack_mask(np.array(rows, dtype=np.uint32))
    assert len(packed) == 4 * len(rows)
    assert unpack_mask(packed, num_labels).tolist() == rows


@given(st.binary(max_size=24), st.integers(0, 2**32))
def test_bytes_are_a_mask_or_refused(packed: bytes, num_labels: int) -> None:
    try:
        rows = unpack_mask(packed, num_labels)
    except ValueError:
        numbers = np.frombuffer(packed[: len(packed) // 4 * 4], dtype="<u4").astype(np.int64)
        rises = bool((np.diff(numbers) > 0).all())
        assert len(packed) % 4 or not rises or numbers.max() >= num_labels
    else:
        assert pack_mask(rows) == packed


@given(st.lists(st.sets(st.integers(0, 99)).map(sorted), max_size=6))
def test_rows_come_back_from_masks(rows: list[list[int]]) -> None:
    masks = Masks.from_rows([np.array(row, dtype=np.uint32) for row in rows], 100)
    assert [masks.row(number).tolist() for number in range(len(masks))] == rows


@given(documents(), st.data())
def test_compiled_masks_are_what_the_document_says(
    document: dict[str, Any], data: st.DataObject
) -> None:
    taxonomy = Taxonomy.from_json(json.dumps(document).encode())
    values = {each["name"]: each["values"] for each in document["attributes"]}
    shuffled = data.draw(st.permutations(taxonomy.label_ids()))
    space = LabelSpace(tuple(shuffled[: data.draw(st.integers(0, len(shuffled)))]))
    ids = data.draw(st.lists(st.sampled_from(list(taxonomy.categories)), max_size=10))
    masks = compile_masks(taxonomy, ids, space)
    assert len(masks) == len(ids)
    for number, category_id in enumerate(ids):
        wanted = {
            label_id(attribute, value)
            for attribute, chosen in document["relevant"][category_id].items()
            for value in (values[attribute] if chosen is True else chosen)
        }
        row = masks.row(number)
        assert [space.ids[each] for each in row] == [each for each in space.ids if each in wanted]
        assert compile_mask(taxonomy, category_id, space).tolist() == row.tolist()
        assert set(taxonomy.relevant_label_ids(category_id)) == wanted


@given(documents())
def test_json_round_trip(document: dict[str, Any]) -> None:
    taxonomy = Taxonomy.from_json(json.dumps(document).encode())
    again = Taxonomy.from_json(taxonomy.to_json())
    assert again == taxonomy
    assert again.label_ids() == taxonomy.label_ids()
    for category_id in taxonomy.categories:
        path = taxonomy.path(category_id)
        assert path[0].id == taxonomy.department_of(category_id)
        assert path[-1].id == category_id
        assert [each.parent for each in path] == [None, *(each.id for each in path[:-1])]


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_different_pairs_have_different_label_ids(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert (label_id(*one) == label_id(*other)) == (one == other)


def test_packed_masks_are_little_endian() -> None:
    assert pack_mask(np.array([1, 258], dtype=np.uint32)) == b"\x01\0\0\0\x02\x01\0\0"
    with pytest.raises(ValueError, match="four bytes"):
        unpack_mask(b"\0\0\0", 9)
