"""Keys lie where Kafka's default partitioner puts them."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from worker.partitioner import hash_keys


@given(st.lists(st.binary(max_size=40) | st.binary(min_size=250, max_size=262), max_size=30))
def test_equals_aiokafkas_murmur2(keys):
    assert hash_keys(keys) == [murmur2(key) & 0x7FFFFFFF for key in keys]


def test_known_hashes():
    # Values of org.apache.kafka.common.utils.UtilsTest.
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert hash_keys(list(known)) == [value & 0x7FFFFFFF for value in known.values()]
