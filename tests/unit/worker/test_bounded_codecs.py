"""What was compressed comes back, up to a bound and not beyond it."""

from __future__ import annotations

from collections.abc import Callable

import cramjam
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from worker.bounded_codecs import decompress

ENCODERS = [(1, gzip_encode), (2, snappy_encode), (3, lz4_encode), (4, zstd_encode)]


@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 700, bytes(2_000_000)])
def test_up_to_the_bound(codec: int, encode: Callable[[bytes], bytes], data: bytes) -> None:
    assert decompress(codec, encode(data), len(data)) == data
    if data:
        with pytest.raises(ValueError, match="decompresses to more"):
            decompress(codec, encode(data), len(data) - 1)


@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
def test_what_is_broken(codec: int, encode: Callable[[bytes], bytes]) -> None:
    for broken in (b"junk", encode(b"abc" * 100)[:-5], encode(b"abc" * 100) + b"jk"):
        with pytest.raises(ValueError, match="cannot be decompressed"):
            decompress(codec, broken, 1_000)


def test_snappy_without_frames_and_gzip_of_two_members() -> None:
    assert decompress(2, bytes(cramjam.snappy.compress_raw(b"abc")), 3) == b"abc"
    assert decompress(1, gzip_encode(b"ab") + gzip_encode(b"c"), 3) == b"abc"


def test_an_unknown_compression() -> None:
    with pytest.raises(ValueError, match="compression 5 is not known"):
        decompress(5, b"", 1)
