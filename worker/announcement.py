"""What the control topic says: a key a role, whose value is the release announced for it.

The topic is compacted: the last value of a key holds, and a null takes it back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

import orjson

from worker.errors import ReleaseError

__all__ = ["RETURN_KEY", "ROLES", "Announcement", "CanaryReturn", "Role", "role_key"]

SCHEMA = "sortiment.control.v1"

# active: answers products. canary: answers a share of them in its place. shadow: scores a share of
# them again, beside what answers.
Role = Literal["active", "canary", "shadow"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

RETURN_KEY: Final = b"canary-return"


def role_key(role: Role) -> bytes:
    """Key of a role's announcements."""
    return f"{role}-release".encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """That a release is to take a role.

    Attributes:
        release: ``name/version``.
        address: where it is; anything that fsspec reads.
        manifest_sha256: digest of its manifest, which holds the digests of all else.
        announced_at: RFC 3339, UTC.
        share: of the products, by a hash of their keys; 1 for the active release.
    """

    release: str
    address: str
    manifest_sha256: str
    announced_at: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")

    def to_json(self) -> bytes:
        """The record's value."""
        return orjson.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, value: bytes) -> Announcement:
        """What ``to_json`` wrote; unknown fields are ignored.

        Raises:
            ReleaseError: not an announcement; the message says why.
        """
        raw = _object(value)
        texts = _texts(raw, "release", "address", "manifest_sha256", "announced_at")
        share = raw.get("share", 1.0)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ReleaseError(f"share must be a number in (0, 1], got {share!r}")
        return cls(**texts, share=float(share))


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryReturn:
    """That a worker found a canary wanting: every worker gives it up.

    Attributes:
        manifest_sha256, announced_at: of the announcement that this ends; a later one of the same
            release is another try.
        reason: what was out of its bounds.
    """

    manifest_sha256: str
    announced_at: str
    reason: str

    def ends(self, announcement: Announcement) -> bool:
        """Whether it is this announcement that is ended."""
        return (self.manifest_sha256, self.announced_at) == (
            announcement.manifest_sha256,
            announcement.announced_at,
        )

    def to_json(self) -> bytes:
        """The record's value."""
        return orjson.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, value: bytes) -> CanaryReturn:
        """What ``to_json`` wrote; unknown fields are ignored.

        Raises:
            ReleaseError: not such a record; the message says why.
        """
        return cls(**_texts(_object(value), "manifest_sha256", "announced_at", "reason"))


def _object(value: bytes) -> dict[str, object]:
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ReleaseError(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ReleaseError(f"not an object with schema {SCHEMA}")
    return raw


def _texts(raw: dict[str, object], *names: str) -> dict[str, str]:
    found = {name: raw.get(name) for name in names}
    wrong = [name for name, text in found.items() if not isinstance(text, str) or not text]
    if wrong:
        raise ReleaseError(f"{', '.join(wrong)} must be text, and not empty")
    return {name: str(text) for name, text in found.items()}
