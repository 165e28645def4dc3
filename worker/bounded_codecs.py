"""Kafka's compressions undone, never beyond a bound: some kilobytes may hold gigabytes."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cramjam

__all__ = ["decompress"]

# Numbers of the compressions in a batch's attributes.
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_GZIP_WINDOW = 31  # zlib's for a gzip frame with the largest window
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_BYTES = 16  # with two versions
# First try of an output's size, and how it grows. What is not needed must be zeroed all the same.
_LEAST_BYTES = 64 * 1024
_USUAL_RATIO = 16
_GROWTH = 8


def decompress(codec: int, data: bytes, max_bytes: int) -> bytes:
    """What was compressed.

    Raises:
        ValueError: it is broken, larger than ``max_bytes``, or of no known compression.
    """
    try:
        if codec == _GZIP:
            return _gzip(data, max_bytes)
        if codec == _SNAPPY:
            return _snappy(data, max_bytes)
        if codec in (_LZ4, _ZSTD):
            return _framed(cramjam.lz4 if codec == _LZ4 else cramjam.zstd, data, max_bytes)
    except (cramjam.DecompressionError, struct.error, zlib.error) as error:
        raise ValueError(f"it cannot be decompressed ({error})") from error
    raise ValueError(f"compression {codec} is not known")


def _too_large(max_bytes: int) -> ValueError:
    return ValueError(f"it decompresses to more than {max_bytes} bytes")


def _gzip(data: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes
    while data:
        member = zlib.decompressobj(_GZIP_WINDOW)
        part = member.decompress(data, room + 1)
        if len(part) > room:
            raise _too_large(max_bytes)
        if not member.eof:
            raise ValueError("it cannot be decompressed (the end is missing)")
        parts.append(part)
        room -= len(part)
        data = member.unused_data
    return b"".join(parts)


def _snappy(data: bytes, max_bytes: int) -> bytes:
    if not data.startswith(_XERIAL):
        return _snappy_block(data, max_bytes)
    parts: list[bytes] = []
    room, position = max_bytes, _XERIAL_BYTES
    while position < len(data):
        (size,) = struct.unpack_from(">I", data, position)
        position += 4
        part = _snappy_block(data[position : position + size], room)
        parts.append(part)
        room -= len(part)
        position += size
    return b"".join(parts)


def _snappy_block(block: bytes, room: int) -> bytes:
    size = cramjam.snappy.decompress_raw_len(block)
    if size > room:
        raise _too_large(room)
    return bytes(cramjam.snappy.decompress_raw(block))


def _framed(codec: Any, data: bytes, max_bytes: int) -> bytes:
    size = max(_LEAST_BYTES, _USUAL_RATIO * len(data))
    while True:
        output = bytearray(min(size, max_bytes))
        try:
            written = codec.decompress_into(data, output)
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if size >= max_bytes:
                raise _too_large(max_bytes) from error
            size *= _GROWTH
        else:
            return bytes(memoryview(output)[:written])
