from __future__ import annotations

import pytest

from models.addresses import without_password, without_secrets


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("redis://host", "redis://host"),
        ("redis://u:p@host:1/2", "redis://***@host:1/2"),
        ("redis://u@host", "redis://***@host"),
        ("redis://u:p@x@host", "redis://***@host"),
        ("s3://key:se/cr?et#@bucket/r", "s3://***@bucket/r"),
        ("s3://key:se://cret@bucket/r", "s3://***@bucket/r"),
        ("simplecache::s3://key:secret@bucket/r", "simplecache::s3://***@bucket/r"),
        ("u:p@host", "***@host"),
        ("s3://bucket/shop@v1/2", "s3://bucket/shop@v1/2"),
        ("products", "products"),
    ],
)
def test_without_password(address: str, told: str) -> None:
    assert without_password(address) == told


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("redis://u:p@x@host/1", "redis://***@host/1"),
        ("redis://host?password=p", "redis://host?***"),
        ("redis://u:p@host?password=p", "redis://***@host?***"),
        # A password with a question mark, or a query with an at sign.
        ("redis://user:hunter2?x@host:6379/0", "redis://***"),
        ("redis://host?password=p@ss", "redis://***"),
        ("u:p?x@host", "***"),
        ("products", "products"),
    ],
)
def test_without_secrets(address: str, told: str) -> None:
    assert without_secrets(address) == told
