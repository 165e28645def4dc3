"""Product files become input events: labels stay behind, bad lines are named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from worker.product_lines import ProductFileError, read_events


def write(path: Path, *rows: Any) -> Path:
    data = b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def product(number: int, **fields: Any) -> dict[str, Any]:
    labels = {"category": f"c{number}", "attributes": [{"name": "a", "value": "b"}]}
    return {"product_id": f"p{number}", "title": "t", **labels, **fields}


@pytest.mark.parametrize("name", ["products.jsonl", "products.jsonl.gz"])
def test_labels_are_stripped_and_all_else_passed_on(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, product(1, locale="ja", odd={"x": [1]}), b"  ", product(2))
    events = list(read_events([path]))
    assert [event.key for event in events] == [b"p1", b"p2"]
    assert orjson.loads(events[0].value) == {
        "product_id": "p1",
        "title": "t",
        "locale": "ja",
        "odd": {"x": [1]},
    }


def test_files_follow_each_other(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.jsonl", product(n)) for n in (1, 2)]
    assert [event.key for event in read_events(paths)] == [b"p1", b"p2"]


def test_an_integer_id_is_a_key(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"product_id": 7, "title": ""})
    assert [event.key for event in read_events([path])] == [b"7"]


def test_unkeyed(tmp_path: Path) -> None:
    assert [e.key for e in read_events([write(tmp_path / "p.jsonl", product(1))], keyed=False)] == [
        None
    ]


def claims(path: Path, claim: Any) -> list[Any]:
    events = read_events([path], claim)
    return [orjson.loads(event.value).get("claimed_category") for event in events]


def test_claims(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *(product(number) for number in range(1, 23)))
    assert claims(path, "none") == [None] * 22
    assert claims(path, "true") == [f"c{number}" for number in range(1, 23)]
    noisy = claims(path, "noisy")
    assert noisy[0::2] == [None] * 11
    assert noisy[1:18:2] == [f"c{number}" for number in range(2, 19, 2)]
    assert noisy[19] == "c19", "every tenth claim is the neighbour's"


def test_the_lines_own_claim_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", product(1, claimed_category="mine"))
    assert claims(path, "none") == ["mine"]
    assert claims(path, "true") == ["c1"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[1]", "a product is a JSON object, got list"),
        (b'{"title": "x"}', "product_id must be text or an integer"),
        (b'{"product_id": ""}', "product_id must be text or an integer"),
        (b'{"product_id": true}', "product_id must be text or an integer"),
        (b'{"product_id": 1, "deep": ' + b"[" * 300 + b"]" * 300 + b"}", "cannot be written again"),
    ],
)
def test_a_bad_line_is_named_after_the_good_ones_were_given(
    tmp_path: Path, line: bytes, why: str
) -> None:
    path = write(tmp_path / "p.jsonl", product(1), line, product(3))
    events = read_events([path])
    assert next(events).key == b"p1"
    with pytest.raises(ProductFileError, match=rf"p\.jsonl:2: {why}"):
        next(events)


def test_a_cut_archive_names_the_line(tmp_path: Path) -> None:
    rows = b"\n".join(orjson.dumps(product(number)) for number in range(2_000))
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(rows)[:-2_000])
    with pytest.raises(ProductFileError, match=r"p\.jsonl\.gz:\d+: cannot be read"):
        list(read_events([path]))


def test_a_file_that_is_no_archive_or_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    with pytest.raises(ProductFileError, match=r"p\.jsonl\.gz: cannot be read: No such file"):
        list(read_events([path]))
    path.write_bytes(b"plain")
    with pytest.raises(ProductFileError, match="cannot be read: Not a gzipped file"):
        list(read_events([path]))
