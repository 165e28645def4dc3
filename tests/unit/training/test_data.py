import gzip
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import TaxonomyError
from tests.tiny_shop import write_shop
from training.data import DataError, DataSet, read_products


def line(**changed: Any) -> bytes:
    raw: dict[str, Any] = {
        "product_id": "p1",
        "locale": "en",
        "title": "Red  <b>boots</b>",
        "description": "",
        "bullets": [],
        "image": None,
        "category": "boots",
        "attributes": [{"name": "Color", "value": "red"}, {"name": "Color", "value": "red"}],
    }
    return orjson.dumps(raw | changed)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_products_are_read_as_the_worker_reads_them(tmp_path: Path, name: str) -> None:
    text = b"\n".join([line(), b"", line(product_id=2, attributes=None)])
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    first, second = DataSet(tmp_path).products("train")
    assert first.product.title == "Red boots"
    assert first.category == "boots"
    assert first.attributes == (("Color", "red"),)
    assert first.label_ids == {"Color=red"}
    assert second.product.product_id == "2"
    assert second.attributes == ()


def test_lines_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line() + b"\nnot json\n")
    products = read_products(path)
    assert next(products).product.product_id == "p1"
    with pytest.raises(DataError, match="1 lines are no labelled products"):
        next(products)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"not json", "line 2: invalid literal"),
        (b"[]", "line 2: not_an_object"),
        (line(title=None), "line 2: missing_field: title"),
        (line(category=None), "line 2: missing_field: category"),
        (line(category=""), "line 2: missing_field: category"),
        (line(attributes={}), "line 2: wrong_type: attributes must be a list"),
        (line(attributes="red"), "line 2: wrong_type: attributes must be a list"),
        (line(attributes=[{"name": "Color"}]), "line 2: wrong_type: an attribute is"),
        (line(attributes=[["Color", "red"]]), "line 2: wrong_type: an attribute is"),
        (b'{"a": "\xff"}', "line 2"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, bad: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([line(), bad, line()]))
    with pytest.raises(DataError, match=message) as refused:
        list(read_products(path))
    assert str(path) in str(refused.value)


def test_all_bad_lines_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" * 50)
    with pytest.raises(DataError, match=r"50 lines are no(.|\n)*line 20(.|\n)*and 30 more"):
        list(read_products(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    whole = gzip.compress(line() * 100)
    (tmp_path / "train.jsonl.gz").write_bytes(whole[:-10])
    (tmp_path / "valid.jsonl.gz").write_bytes(b"no gzip")
    for split in ("train", "valid"):
        with pytest.raises(DataError, match=rf"{split}\.jsonl\.gz cannot be read"):
            list(DataSet(tmp_path).products(split))


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        DataSet(tmp_path / "nowhere")
    data = DataSet(tmp_path)
    with pytest.raises(DataError, match=r"needs one of test\.jsonl, .*it has none"):
        data.products("test")
    (tmp_path / "test.jsonl").touch()
    (tmp_path / "test.jsonl.gz").touch()
    with pytest.raises(DataError, match=r"has test\.jsonl, test\.jsonl\.gz"):
        data.products("test")
    (tmp_path / "taxonomy.json").write_bytes(b"{}")
    with pytest.raises(TaxonomyError):
        _ = data.taxonomy


_READ = """
import sys
from pathlib import Path
import pyarrow as pa
from training.data import read_products

for _ in read_products(Path(sys.argv[1])):
    pass
print(pa.default_memory_pool().max_memory())
"""


def test_a_parquet_file_of_one_row_group_is_not_read_whole(tmp_path: Path) -> None:
    path, count = tmp_path / "train.parquet", 20_000
    columns = {
        "product_id": [str(number) for number in range(count)],
        "title": ["boots"] * count,
        "description": [random.Random(number).randbytes(400).hex() for number in range(count)],
        "category": ["boots"] * count,
    }
    pq.write_table(pa.table(columns), path, row_group_size=count)
    assert pq.ParquetFile(path).num_row_groups == 1
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < path.stat().st_size / 2


def test_parquet_is_read_as_jsonl_is(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data")
    wanted = list(read_products(data / "train.jsonl.gz"))
    lines = gzip.decompress((data / "train.jsonl.gz").read_bytes()).splitlines()
    raw = [orjson.loads(each) for each in lines]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(raw), path, row_group_size=50)
    assert list(read_products(path)) == wanted
    assert DataSet(tmp_path).count("train") == DataSet(data).count("train") == len(wanted)


def test_bad_rows_of_a_table_are_named(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    rows = [{"product_id": "1", "title": "x", "category": "a"}, {"product_id": "2", "title": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=r"row 2: missing_field"):
        list(read_products(path))
    texts = pa.array([b"x", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"product_id": ["1", "2"], "title": texts, "category": "aa"}), path)
    with pytest.raises(DataError, match=r"1 lines are no(.|\n)*row 2: 'utf-8' codec"):
        list(read_products(path))
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_products(path))


def test_columns_that_no_product_has_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    rows = {"product_id": ["1"], "title": ["x"], "category": ["a"]}
    odd = {
        "created": pa.array([1], pa.timestamp("ns", "Nowhere/Atlantis")),
        "raw": pa.array([b"\xff"]).view(pa.string()),
    }
    pq.write_table(pa.table({**odd, **rows}), path)
    (found,) = read_products(path)
    assert found.product.title == "x"


def test_a_split_to_measure_on_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes((line() + b"\n") * 3)
    (tmp_path / "valid.jsonl").touch()
    assert len(DataSet(tmp_path).listed("test")) == 3
    assert len(DataSet(tmp_path).listed("test", 2)) == 2
    with pytest.raises(DataError, match="no products in valid: nothing to measure"):
        DataSet(tmp_path).listed("valid")


def test_empty_lines_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(b"\n" + line() + b"\n \n" + line())
    assert DataSet(tmp_path).count("test") == 2
