"""The announcement record; reading and loading are in tests/integration/test_control.py."""

from __future__ import annotations

import orjson
import pytest

from worker.errors import ReleaseError
from worker.releases import Announcement

ANNOUNCEMENT = Announcement(
    release="flagship/3",
    address="s3://models/flagship/3",
    manifest_sha256="ab" * 32,
    announced_at="2025-01-01T00:00:00+00:00",
)


def test_an_announcement_comes_back() -> None:
    assert Announcement.from_json(ANNOUNCEMENT.to_json()) == ANNOUNCEMENT


def test_the_value_names_its_schema() -> None:
    assert orjson.loads(ANNOUNCEMENT.to_json()) == {
        "schema": "sortiment.control.v1",
        "release": "flagship/3",
        "address": "s3://models/flagship/3",
        "manifest_sha256": "ab" * 32,
        "announced_at": "2025-01-01T00:00:00+00:00",
    }


def test_unknown_fields_of_a_later_writer_are_ignored() -> None:
    value = orjson.dumps({**orjson.loads(ANNOUNCEMENT.to_json()), "shadow": "flagship/4"})

    assert Announcement.from_json(value) == ANNOUNCEMENT


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "schema"),
        (b'{"schema":"sortiment.control.v2"}', "schema"),
        (b'{"schema":"sortiment.control.v1"}', "release, address, manifest_sha256, announced_at"),
        (
            b'{"schema":"sortiment.control.v1","release":"a/1","address":7,'
            b'"manifest_sha256":"","announced_at":"now"}',
            "address, manifest_sha256",
        ),
    ],
)
def test_what_is_no_announcement_is_refused_with_the_reason(value: bytes, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        Announcement.from_json(value)
