"""Title, description and bullets as one row of token ids, each with a segment of its own.

    [CLS] title [SEP] description [SEP] bullets [SEP]
      0     0     0        1        1       2      2

dhpc-amazon, C.1, lets segment embeddings say which of the three texts a word comes from. An
encoder's own table has two rows, or one: it is grown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import nn

from models.encoders import TextEncoder
from models.errors import ModelError
from models.prepare import Prepared, Ragged
from models.product import Product
from models.tokens import INPUT_IDS, open_tokenizer, unpanicked, vocabulary_of

__all__ = [
    "NUM_SEGMENTS",
    "SEGMENT_IDS",
    "SegmentPreparer",
    "SegmentTokenizer",
    "grow_segments",
    "letters_only",
]

SEGMENT_IDS = "segment_ids"
NUM_SEGMENTS = 3

# As in models.tokens: what lies beyond is never read.
_CHARS_PER_TOKEN = 16
_NOT_LETTERS = re.compile(r"[\W\d_]+")


def letters_only(text: str) -> str:
    """The text without digits and signs, as dhpc-amazon, C, cleans it.

    Letters of every script stay, with their combining marks; a run of anything else is a space.
    """
    return " ".join(_NOT_LETTERS.sub(_marks_or_spaces, text).split())


def _marks_or_spaces(run: re.Match[str]) -> str:
    if run[0].isascii():
        return " "
    return "".join(each if unicodedata.category(each)[0] == "M" else " " for each in run[0])


class SegmentTokenizer:
    """Token and segment ids of products, cut to ``max_tokens``.

    The title is cut only where it fills the whole length alone; what is left is shared by
    description and bullets, the longer one cut first. An empty text has no tokens and no [SEP]
    (but a product has a title's). Names of special tokens inside a seller's text are text.

    Args:
        serialised: a ``tokenizer.json`` whose template for one text is one token, text, one token.
        max_tokens: at least 8, special tokens counted.
        letters: read letters alone.

    Raises:
        ModelError: the file is not such a tokenizer.

    Notes:
        Safe to share between threads: nothing is set after construction.
    """

    def __init__(self, serialised: bytes, max_tokens: int, *, letters: bool = False) -> None:
        if max_tokens < 8:
            raise ValueError(f"max_tokens must be at least 8, got {max_tokens}")
        self.serialised = serialised
        self.max_tokens = max_tokens
        self.letters = letters
        self._tokenizer = open_tokenizer(serialised)
        self._tokenizer.no_truncation()
        signs = unpanicked(lambda: self._tokenizer.encode("")).ids
        if len(signs) != 2:
            raise ModelError(
                f"tokenizer.json puts {len(signs)} special tokens around a text; two are needed, "
                "as [CLS] and [SEP]"
            )
        self._start, self._end = signs
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.encode_special_tokens = True

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return vocabulary_of(self._tokenizer)

    def encode(self, products: Sequence[Product]) -> tuple[Ragged, Ragged]:
        """Token ids (int32) and segment ids (int8), a row a product.

        Raises:
            ModelError: the tokenizers library panicked.
        """
        most = self.max_tokens * _CHARS_PER_TOKEN
        texts = [
            text[:most]
            for product in products
            for text in (product.title, product.description, " ".join(product.bullets))
        ]
        if self.letters:
            texts = [letters_only(text) for text in texts]
        found = unpanicked(
            lambda: self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        )
        ids = [encoding.ids for encoding in found]
        rows: list[list[int]] = []
        segments: list[int] = []
        for place in range(0, len(ids), NUM_SEGMENTS):
            row = [self._start]
            parts = self._cut(ids[place : place + NUM_SEGMENTS])
            for segment, part in enumerate(parts):
                if part or segment == 0:
                    row += part
                    row.append(self._end)
                    # The first sign belongs to the title.
                    segments += [segment] * (len(part) + 1 + (segment == 0))
            rows.append(row)
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(indptr[-1]))
        return Ragged(flat, indptr), Ragged(np.array(segments, dtype=np.int8), indptr)

    def _cut(self, parts: list[list[int]]) -> list[list[int]]:
        title, description, bullets = parts
        title = title[: self.max_tokens - 2]
        left = self.max_tokens - 2 - len(title)
        signs = bool(description) + bool(bullets)
        if len(description) + len(bullets) + signs <= left:
            return [title, description, bullets]
        if signs == 2:
            half = (left - 2) // 2
            for_bullets = min(len(bullets), max(half, left - 2 - len(description)))
            for_description = left - 2 - for_bullets
        else:
            for_bullets = for_description = left - 1
        return [title, description[: max(0, for_description)], bullets[: max(0, for_bullets)]]


class SegmentPreparer:
    """Products to token and segment ids; a product costs its tokens."""

    def __init__(self, tokenizer: SegmentTokenizer) -> None:
        self.tokenizer = tokenizer

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """Arrays ``input_ids`` (int32) and ``segment_ids`` (int8), a row a product."""
        tokens, segments = self.tokenizer.encode(products)
        costs = np.maximum(tokens.lengths, 1).astype(np.int32)
        return Prepared({INPUT_IDS: tokens, SEGMENT_IDS: segments}, costs)


def grow_segments(encoder: TextEncoder, count: int = NUM_SEGMENTS) -> TextEncoder:
    """The encoder with at least ``count`` segment embeddings; it is taken over.

    New rows begin as copies of the last one: what a pre-trained encoder knows of "not the first
    text" is the best that can be said of a third.

    Raises:
        ModelError: the encoder has no segment embeddings.
    """
    embeddings = getattr(encoder.transformer, "embeddings", None)
    table = getattr(embeddings, "token_type_embeddings", None)
    if not isinstance(table, nn.Embedding):
        raise ModelError(
            f"a {encoder.config.transformer.get('model_type')} has no segment embeddings; set "
            "system.segments=false or take an encoder like BERT"
        )
    if table.num_embeddings >= count:
        return encoder
    grown = nn.Embedding(count, table.embedding_dim)
    with torch.no_grad():
        grown.weight[: table.num_embeddings] = table.weight
        grown.weight[table.num_embeddings :] = table.weight[-1]
    embeddings.token_type_embeddings = grown.to(table.weight.device)  # type: ignore[union-attr]
    config = replace(
        encoder.config,
        transformer={**encoder.config.transformer, "type_vocab_size": count},
    )
    return TextEncoder(config, encoder.transformer)
