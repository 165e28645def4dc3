"""Label spaces, and masks: which labels are relevant to which category.

A mask is M(x) of the label-masking paper (ave-label-masking, section 4.2): the labels that the
taxonomy allows for a product's category. Masks are CSR rows of sorted label rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelSpace", "Masks", "pack_mask", "unpack_mask"]

# Packed masks are read by every worker of a fleet, whatever its byte order.
_PACKED = np.dtype("<u4")


@dataclass(frozen=True)
class LabelSpace:
    """The ordered ids that a model's output rows stand for.

    Raises:
        ValueError: an id occurs twice, or is empty.
    """

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.row_of) != len(self.ids):
            seen: set[str] = set()
            twice = sorted({i for i in self.ids if i in seen or seen.add(i)})  # type: ignore[func-returns-value]
            raise ValueError(f"label space holds {len(twice)} ids twice, first {twice[0]!r}")
        if "" in self.row_of:
            raise ValueError("label space holds an empty id")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each id."""
        return {label_id: row for row, label_id in enumerate(self.ids)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the ids in order, each with its length before it, first 32 hex digits."""
        digest = hashlib.sha256()
        for label_id in self.ids:
            encoded = label_id.encode()
            digest.update(len(encoded).to_bytes(4, "little"))
            digest.update(encoded)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Masks:
    """Relevant label rows per category, as CSR.

    Args:
        indptr: [C + 1], int64.
        indices: [nnz], uint32, strictly increasing within a row, each below ``num_labels``.
        num_labels: size of the label space.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    num_labels: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, category: int) -> NDArray[np.uint32]:
        """Label rows relevant to one category row."""
        return self.indices[self.indptr[category] : self.indptr[category + 1]]

    @classmethod
    def from_rows(cls, rows: Sequence[NDArray[np.uint32]], num_labels: int) -> Masks:
        """Masks from one array of label rows per category, each as ``Masks.indices`` wants it."""
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        indices = np.concatenate(rows) if rows else np.empty(0, dtype=np.uint32)
        return cls(indptr, indices.astype(np.uint32, copy=False), num_labels)


def pack_mask(label_rows: NDArray[np.uint32]) -> bytes:
    """A mask as little-endian uint32, four bytes a label. No labels: no bytes."""
    return label_rows.astype(_PACKED, copy=False).tobytes()


def unpack_mask(packed: bytes, num_labels: int) -> NDArray[np.uint32]:
    """What ``pack_mask`` packed.

    Raises:
        ValueError: bytes that ``pack_mask`` cannot have made for this label space.
    """
    if len(packed) % 4:
        raise ValueError(f"a packed mask has four bytes a label, got {len(packed)} bytes")
    rows = np.frombuffer(packed, dtype=_PACKED).astype(np.uint32, copy=False)
    if len(rows) and (int(rows[-1]) >= num_labels or bool((rows[1:] <= rows[:-1]).any())):
        raise ValueError(f"a packed mask must rise strictly and stay below {num_labels}")
    return rows
