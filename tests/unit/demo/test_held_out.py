from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.run import _held_out
from models.errors import SortimentError
from tests.tiny_shop import write_shop


def test_products_have_labels_for_us_and_none_for_the_worker(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data")
    held_out, events = _held_out(data, 3)
    assert [item.product.product_id.encode() for item in held_out] == [
        event.key for event in events
    ]
    assert all(item.category and item.label_ids for item in held_out)
    for event in events:
        assert not {"category", "attributes"} & orjson.loads(event.value).keys()


def test_a_table_is_no_stream_of_events(tmp_path: Path) -> None:
    rows = [{"product_id": "1", "title": "x", "category": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    with pytest.raises(SortimentError, match=r"give them as test\.jsonl or test\.jsonl\.gz"):
        _held_out(tmp_path, 3)
