"""A bag of hashed words and character n-grams: text to bucket ids, a whole window at once.

A sub-word vocabulary made for one language has no pieces for another's; hashes have pieces for
all of them. An id is a hash of code points, so it is the same in every process and on every
machine: nothing here depends on ``hash()``, on the byte order or on Python's Unicode tables beyond
``str.lower``.

Legend: N products, C code points of the window, nnz ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.prepare import Ragged

__all__ = ["HashingConfig", "hash_fields"]

_U64 = NDArray[np.uint64]

# Knuth's MMIX multiplier: odd, so that it has an inverse modulo 2**64 (words are cut from sums).
_BASE = 6364136223846793005
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_GOLDEN = 0x9E3779B97F4A7C15

# Ends a field; control characters never survive normalising, and are replaced where they did.
_END = "\x00"
_MAX_FIELDS = 16

# Classes of code points. A word is a run of one class: Japanese has no spaces, but its nouns are
# runs of katakana or of kanji.
_GAP, _LETTER, _HIRAGANA, _KATAKANA, _KANJI = range(5)
_WORD_RANGES = (
    (0x30, 0x39, _LETTER),
    (0x41, 0x5A, _LETTER),
    (0x61, 0x7A, _LETTER),
    (0xAA, 0xAA, _LETTER),
    (0xB5, 0xB5, _LETTER),
    (0xBA, 0xBA, _LETTER),
    (0xC0, 0xD6, _LETTER),
    (0xD8, 0xF6, _LETTER),
    (0xF8, 0x1FFF, _LETTER),
    (0x2070, 0x218F, _LETTER),
    (0x2C00, 0x2DFF, _LETTER),
    (0x2E80, 0x2FDF, _KANJI),
    (0x3005, 0x3007, _KANJI),
    (0x3041, 0x309F, _HIRAGANA),
    (0x30A1, 0x30FA, _KATAKANA),
    (0x30FC, 0x30FF, _KATAKANA),
    (0x3100, 0x31EF, _LETTER),
    (0x31F0, 0x31FF, _KATAKANA),
    (0x3400, 0x4DBF, _KANJI),
    (0x4E00, 0x9FFF, _KANJI),
    (0xA000, 0xD7FF, _LETTER),
    (0xF900, 0xFAFF, _KANJI),
    (0xFB00, 0xFEFF, _LETTER),
    (0xFF10, 0xFF19, _LETTER),
    (0xFF21, 0xFF3A, _LETTER),
    (0xFF41, 0xFF5A, _LETTER),
    (0xFF66, 0xFF9F, _KATAKANA),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashingConfig:
    """How text becomes bucket ids. Part of a release: other settings are another model.

    Attributes:
        buckets: number of ids; 1 to 2**31.
        ngrams: lengths of the character n-grams, each 1 to 8.
        words: whether runs of one class of characters are hashed too.
        word_pairs: whether two such runs that follow one another in a field are hashed as one.
        mark_title: whether a word of the first field has an id of its own beside the shared one.
        max_chars: a field is cut here; with ``max_ids`` it bounds what a hostile text costs.
        max_ids: a product keeps at most this many distinct ids, the lowest (a fixed random choice).
        seed: another seed is another, unrelated hash.
    """

    buckets: int = 2**18
    ngrams: tuple[int, ...] = (2, 3, 4)
    words: bool = True
    word_pairs: bool = False
    mark_title: bool = True
    max_chars: int = 600
    max_ids: int = 2048
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= 2**31:
            raise ValueError(f"buckets must be 1 to 2**31, got {self.buckets}")
        if not all(1 <= n <= 8 for n in self.ngrams):
            raise ValueError(f"ngrams must each be 1 to 8, got {self.ngrams}")
        if self.word_pairs and not self.words:
            raise ValueError("word_pairs without words: pairs are made of words")
        if not (self.ngrams or self.words):
            raise ValueError("neither words nor n-grams are hashed: nothing is left")
        if self.max_chars < 1 or self.max_ids < 1:
            raise ValueError(
                f"max_chars and max_ids must be positive, got {self.max_chars}, {self.max_ids}"
            )

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {**asdict(self), "ngrams": list(self.ngrams)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> HashingConfig:
        """What ``to_json`` wrote."""
        return cls(**{**raw, "ngrams": tuple(raw["ngrams"])})


def hash_fields(products: Sequence[tuple[str, ...]], config: HashingConfig) -> Ragged:
    """Distinct bucket ids of each product, rising.

    An n-gram is the polynomial hash of ``n`` neighbouring code points of one field, lower case,
    every run of signs and spaces a single gap; a gap may begin or end an n-gram (it marks where a
    word does), never lie inside one. Words of the first field (the title) have an id of their own
    beside the one that they share with the other fields, where that is asked for: what a product
    *is* stands there.

    Args:
        products: the fields of each product, all with the same number of fields (at most 16).

    Returns:
        N rows, values int32 in [0, buckets).
    """
    if not products:
        return Ragged(np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
    num_fields = len(products[0])
    if not 1 <= num_fields <= _MAX_FIELDS:
        raise ValueError(f"a product has 1 to {_MAX_FIELDS} fields to hash, got {num_fields}")
    codes, classes, field = _window(products, config.max_chars)
    owner = field // num_fields
    mixed = _mix(codes.astype(np.uint64) + np.uint64(_seed(config.seed, 0)))
    hashes: list[_U64] = [np.empty(0, dtype=np.uint64)]
    owners: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for n, rolled in _rolling(mixed, config.ngrams):
        kept = _within_words(classes, n)
        hashes.append(rolled[kept] + np.uint64(_seed(config.seed, n)))
        owners.append(owner[kept])
    if config.words:
        words, starts = _words(mixed, classes)
        hashes.append(words + np.uint64(_seed(config.seed, 100)))
        owners.append(owner[starts])
        if config.mark_title:
            in_title = field[starts] % num_fields == 0
            hashes.append(words[in_title] + np.uint64(_seed(config.seed, 101)))
            owners.append(owner[starts][in_title])
        if config.word_pairs:
            # Mixed first, so that the order of the two counts.
            first = _mix(words[:-1] + np.uint64(_seed(config.seed, 102)))
            pairs = first + words[1:]
            together = field[starts[1:]] == field[starts[:-1]]
            hashes.append(pairs[together])
            owners.append(owner[starts[1:]][together])
    buckets = ((_mix(np.concatenate(hashes)) >> np.uint64(32)) * np.uint64(config.buckets)) >> (
        np.uint64(32)
    )
    return _distinct(np.concatenate(owners), buckets, len(products), config)


def _window(
    products: Sequence[tuple[str, ...]], max_chars: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.int64]]:
    """Code points [C], their classes [C] and the field that each belongs to [C], counted on.

    Each field ends in a gap, gaps are single: a field's first n-gram begins with the gap of the
    field before it.
    """
    fields = [text[:max_chars] for product in products for text in product]
    text = _END.join(fields)
    if text.count(_END) != len(fields) - 1:
        fields = [one.replace(_END, " ") for one in fields]
        text = _END.join(fields)
    # A lone surrogate is a code point like another here: it is data, not a reason to fail.
    encoded = f"{_END}{text}{_END}".lower().encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(encoded, dtype="<u4").astype(np.uint32, copy=False)
    ends = codes == 0
    field = np.cumsum(ends) - 1
    # The gap before a field belongs to the field that it opens, so the last one opens nothing.
    field[-1] = field[-2] if len(field) > 1 else 0
    classes = _class_table()[np.minimum(codes, 0xFFFF)]
    keep = np.ones(len(codes), dtype=np.bool_)
    gaps = classes == _GAP
    keep[1:] = ~(gaps[1:] & gaps[:-1]) | ends[1:]
    codes, classes, field = codes[keep], classes[keep], field[keep]
    return np.where(classes == _GAP, np.uint32(0x20), codes), classes, field


@cache
def _class_table() -> NDArray[np.uint8]:
    table = np.full(0x10000, _GAP, dtype=np.uint8)
    for first, last, kind in _WORD_RANGES:
        table[first : last + 1] = kind
    # Beyond the basic plane (clipped to 0xFFFF) are rare kanji and emoji: each its own letter.
    table[0xFFFF] = _LETTER
    return table


def _seed(seed: int, kind: int) -> int:
    return ((seed * 1000 + kind + 1) * _GOLDEN) % 2**64


def _mix(x: _U64) -> _U64:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _rolling(mixed: _U64, ngrams: tuple[int, ...]) -> list[tuple[int, _U64]]:
    """For each n: sum over k of ``mixed[i + k] * BASE**(n - 1 - k)``, modulo 2**64, for each i."""
    found = []
    rolled = mixed
    for n in range(1, min(max(ngrams, default=0), len(mixed)) + 1):
        if n > 1:
            rolled = rolled[:-1] * np.uint64(_BASE) + mixed[n - 1 :]
        if n in ngrams:
            found.append((n, rolled))
    return found


def _within_words(classes: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    """Starts of the n-grams that hold a letter and no gap inside."""
    gap = classes == _GAP
    count = len(gap) - n + 1
    broken = gap[:count] & gap[n - 1 :]
    for k in range(1, n - 1):
        broken |= gap[k : k + count]
    if n == 2:
        # A letter and a gap say less than the unigram: they are left out.
        broken |= gap[:count] | gap[1:]
    return np.flatnonzero(~broken)


def _words(mixed: _U64, classes: NDArray[np.uint8]) -> tuple[_U64, NDArray[np.int64]]:
    """Hash and start of each run of one class, from differences of a running sum."""
    edges = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(classes)]])
    letters = classes[starts] != _GAP
    starts, ends = starts[letters], ends[letters]
    powers = np.full(len(mixed) + 1, np.uint64(_BASE))
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    sums = np.zeros(len(mixed) + 1, dtype=np.uint64)
    np.cumsum(mixed * powers[:-1], out=sums[1:])
    inverses = np.full(len(mixed) + 1, np.uint64(_BASE_INVERSE))
    inverses[0] = 1
    np.multiply.accumulate(inverses, out=inverses)
    return (sums[ends] - sums[starts]) * inverses[starts], starts


def _distinct(
    owners: NDArray[np.int64], buckets: _U64, num_products: int, config: HashingConfig
) -> Ragged:
    """Distinct ids by product: one sort of (product, id) pairs for the window."""
    keys = (owners.astype(np.uint64) << np.uint64(32)) | buckets
    keys.sort()
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    keys = keys[first]
    lengths = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=num_products)
    indptr = np.zeros(num_products + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    values = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    if int(lengths.max(initial=0)) <= config.max_ids:
        return Ragged(values, indptr)
    rank = np.arange(len(values)) - np.repeat(indptr[:-1], lengths)
    np.cumsum(np.minimum(lengths, config.max_ids), out=indptr[1:])
    return Ragged(values[rank < config.max_ids], indptr)
