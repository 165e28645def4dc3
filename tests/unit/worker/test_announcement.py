"""What the control topic holds; reading and loading are in tests/integration/test_releases.py."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from worker.announcement import Announcement, CanaryReturn, role_key
from worker.errors import ReleaseError

ANNOUNCEMENT = Announcement(
    release="flagship/3",
    address="s3://models/flagship/3",
    manifest_sha256="ab" * 32,
    announced_at="2025-01-01T00:00:00+00:00",
    share=0.25,
)
RETURN = CanaryReturn(
    manifest_sha256="ab" * 32, announced_at="2025-01-01T00:00:00+00:00", reason="it failed"
)


def test_both_come_back_from_json() -> None:
    assert Announcement.from_json(ANNOUNCEMENT.to_json()) == ANNOUNCEMENT
    assert CanaryReturn.from_json(RETURN.to_json()) == RETURN


def test_the_value_names_its_schema() -> None:
    assert orjson.loads(ANNOUNCEMENT.to_json()) == {
        "schema": "sortiment.control.v1",
        "release": "flagship/3",
        "address": "s3://models/flagship/3",
        "manifest_sha256": "ab" * 32,
        "announced_at": "2025-01-01T00:00:00+00:00",
        "share": 0.25,
    }


def test_unknown_fields_of_a_later_writer_are_ignored() -> None:
    value = orjson.dumps({**orjson.loads(ANNOUNCEMENT.to_json()), "later": "flagship/4"})

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


def test_one_without_a_share_is_for_all_products() -> None:
    raw = orjson.loads(ANNOUNCEMENT.to_json())
    del raw["share"]
    assert Announcement.from_json(orjson.dumps(raw)).share == 1


@pytest.mark.parametrize("share", [0, -1, 1.5, "0.5", True, None])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    raw = orjson.loads(ANNOUNCEMENT.to_json()) | {"share": share}
    with pytest.raises(ReleaseError, match="share must be a number"):
        Announcement.from_json(orjson.dumps(raw))


def test_a_return_ends_its_announcement_and_no_later_one() -> None:
    assert RETURN.ends(ANNOUNCEMENT)
    assert not RETURN.ends(replace(ANNOUNCEMENT, announced_at="2026-01-02"))
    assert not RETURN.ends(replace(ANNOUNCEMENT, manifest_sha256="cd"))


def test_missing_texts_are_all_named() -> None:
    with pytest.raises(ReleaseError, match="announced_at, reason must be text"):
        CanaryReturn.from_json(b'{"schema":"sortiment.control.v1","manifest_sha256":"ab"}')


def test_each_role_has_a_key_of_its_own() -> None:
    assert role_key("active") == b"active-release"
    assert role_key("canary") == b"canary-release"
