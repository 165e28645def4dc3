"""Whatever a batch holds: its records come with rising offsets inside it, and nothing is raised."""

from __future__ import annotations

from dataclasses import replace

from aiokafka.codec import gzip_encode
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile_batches import RawBatch, RawRecord
from worker.hostile_records import Batches

_BYTES = st.none() | st.binary(max_size=20)
_RECORDS = st.builds(
    RawRecord,
    key=_BYTES,
    value=_BYTES,
    headers=st.lists(st.tuples(st.binary(max_size=5), _BYTES), max_size=3),
    num_headers=st.none() | st.integers(-2, 5),
    offset_delta=st.none() | st.integers(-5, 2**31 - 1),
    size_lie=st.integers(-20, 20) | st.just(0),
    tail=st.binary(max_size=4),
)


@given(
    records=st.lists(_RECORDS, min_size=1, max_size=5),
    junk=st.binary(max_size=30),
    cut=st.integers(0, 40),
    is_compressed=st.booleans(),
    span=st.integers(0, 3),
)
def test_any_records(
    records: list[RawRecord], junk: bytes, cut: int, is_compressed: bool, span: int
) -> None:
    batch = RawBatch(records, base_offset=10, last_offset_delta=len(records) - 1 + span)
    payload = batch.plain[: len(batch.plain) - cut] + junk
    if is_compressed:
        batch = replace(batch, codec=1, payload=gzip_encode(payload))
    else:
        batch = replace(batch, payload=payload)
    batches = Batches(batch.encoded())
    offsets = [record.offset for record in batches.next_batch()]
    assert offsets
    assert offsets == sorted(offsets)
    assert offsets[0] >= 10
    assert offsets[-1] <= 10 + len(records) - 1 + span
