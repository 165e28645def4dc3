"""Which products are in a sample."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.factories import record
from worker.rollout import Sample

shares = st.floats(0, 1)


@given(st.binary(min_size=1), shares, shares)
def test_a_larger_share_keeps_what_a_smaller_one_has(key: bytes, one: float, other: float) -> None:
    small, large = Sample("s", min(one, other)), Sample("s", max(one, other))
    if small.has(record(key=key)):
        assert large.has(record(key=key))


@given(st.binary())
def test_nothing_and_all_are_shares_too(key: bytes) -> None:
    assert not Sample("s", 0).has(record(key=key))
    assert Sample("s", 1).has(record(key=key))


@given(st.binary(min_size=1), st.binary())
def test_only_the_key_counts_where_there_is_one(key: bytes, value: bytes) -> None:
    sample = Sample("s", 0.5)
    assert sample.has(record(key=key, value=value)) == sample.has(record(key=key, value=None))


def test_the_share_is_about_kept_and_the_salt_chooses_others() -> None:
    records = [record(key=b"seller-%d" % number) for number in range(20_000)]
    first = [Sample("one", 0.1).has(each) for each in records]
    second = [Sample("two", 0.1).has(each) for each in records]
    assert 1_800 < sum(first) < 2_200
    both = sum(a and b for a, b in zip(first, second, strict=True))
    assert both < 300
