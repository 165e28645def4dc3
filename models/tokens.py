"""Products to token ids, with the fast tokenizer that an encoder was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from models.errors import ModelError
from models.prepare import Ragged
from models.product import Product

__all__ = [
    "INPUT_IDS",
    "TOKENIZER_FILE",
    "TextTokenizer",
    "open_tokenizer",
    "text_parts",
    "unpanicked",
    "vocabulary_of",
]

Answer = TypeVar("Answer")

INPUT_IDS = "input_ids"
TOKENIZER_FILE = "tokenizer.json"

# No vocabulary spends 16 characters a token over a whole text: what lies beyond is never read,
# and a description of 20,000 characters would cost a hundred times its 64 tokens.
_CHARS_PER_TOKEN = 16


def open_tokenizer(serialised: bytes) -> Any:
    """A ``tokenizer.json`` as the tokenizers library's ``Tokenizer``, without padding.

    Raises:
        ModelError: the file is not such a tokenizer.
    """
    try:
        _check_merges(json.loads(serialised))
        tokenizer = unpanicked(lambda: Tokenizer.from_str(serialised.decode()))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"tokenizer.json cannot be read ({error}); it must be a file of the tokenizers library"
        ) from error
    tokenizer.no_padding()
    return tokenizer


def unpanicked(call: Callable[[], Answer]) -> Answer:
    """What a call into the tokenizers library answers.

    Raises:
        ModelError: it panicked, which is no ``Exception`` and would end a worker.
    """
    try:
        return call()
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ModelError(f"the tokenizers library panicked: {error}") from error


def vocabulary_of(tokenizer: Any) -> int:
    """Token ids are below this; a vocabulary may have holes."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def _check_merges(document: Any) -> None:
    """The library aborts the process over merges that lack the prefix of its own settings."""
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return
    prefix = model.get("continuing_subword_prefix")
    if not prefix:
        return
    for merge in model.get("merges", ()):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if len(pair) != 2 or not pair[1].startswith(prefix):
            raise ValueError(f"the merge {merge!r} lacks continuing_subword_prefix {prefix!r}")


def text_parts(product: Product) -> tuple[str, str]:
    """What an encoder reads: the title, and bullets and description as one text.

    Without a title the second part is the first: an encoder needs a first segment.
    """
    rest = (
        " ".join((*product.bullets, product.description))
        if product.bullets
        else (product.description)
    )
    return (product.title, rest) if product.title else (rest, "")


class TextTokenizer:
    """Token ids of ``[CLS] title [SEP] bullets description [SEP]``, cut to ``max_tokens``.

    The signs are those of the tokenizer's own template. The longer part is cut first, so what is
    cut of a title is what goes beyond half of the length. Names of special tokens inside a seller's
    text are text.

    Args:
        serialised: a ``tokenizer.json``.
        max_tokens: at least 8, special tokens counted.

    Raises:
        ModelError: the file is not a tokenizer.

    Notes:
        Safe to share between threads: nothing is set after construction.
    """

    def __init__(self, serialised: bytes, max_tokens: int) -> None:
        if max_tokens < 8:
            raise ValueError(f"max_tokens must be at least 8, got {max_tokens}")
        self.serialised = serialised
        self.max_tokens = max_tokens
        self._tokenizer = open_tokenizer(serialised)
        num_signs = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        if num_signs >= max_tokens:
            raise ModelError(
                f"tokenizer.json puts {num_signs} special tokens around two texts, which leaves "
                f"none of max_tokens={max_tokens} for them"
            )
        self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        self._tokenizer.encode_special_tokens = True

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return vocabulary_of(self._tokenizer)

    def encode(self, products: Sequence[Product]) -> Ragged:
        """Token ids, int32, a row a product.

        Raises:
            ModelError: the tokenizers library panicked.
        """
        most = self.max_tokens * _CHARS_PER_TOKEN
        inputs: list[str | tuple[str, str]] = []
        for product in products:
            title, rest = text_parts(product)
            inputs.append((title[:most], rest[:most]) if rest else title[:most])
        found = unpanicked(lambda: self._tokenizer.encode_batch_fast(inputs))
        rows = [encoding.ids for encoding in found]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(indptr[-1]))
        return Ragged(values, indptr)
