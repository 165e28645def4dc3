"""Features of a frozen encoder, computed once and kept on disk.

A cache entry is a folder: ``features.f16`` (rows of float16, memory-mapped: layer-normalised states
lie within a few tens, where it errs by less than one part in a thousand) and ``done.json``, how far
it has come. The folder's name is a hash of everything that the features depend on, so an entry is
never stale, and one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import TextEncoder, pad
from models.prepare import Ragged
from training.whole_files import writing, written_whole

__all__ = ["cached_features", "encode_tokens", "encoder_digest"]

# Rows between two marks of progress: seconds of work for a small encoder on two cores.
_CHUNK_ROWS = 1024
# Tokens in a batch, padding included. On a CPU larger ones leave the cache: MiniLM took a quarter
# more time with 4,096. On a GPU smaller ones leave it waiting.
_BATCH_TOKENS = {"cpu": 1024}
_BATCH_TOKENS_ELSEWHERE = 65_536


def cached_features(
    encoder: TextEncoder,
    tokens: Ragged,
    cache: Path,
    *,
    digest: str,
    segments: Ragged | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> NDArray[np.float16]:
    """Pooled states of every row of ``tokens``, [N, E], read-only, memory-mapped.

    Args:
        cache: folder of all entries; made where it is missing.
        digest: of the encoder, from ``encoder_digest``.
        segments: of each token, for an encoder with segment embeddings.
        advance: called with the number of rows newly ready, those found on disk included.

    Raises:
        SortimentError: the disk is full; what is there is kept.
    """
    entry = cache / "features" / _key(digest, tokens, segments)
    entry.mkdir(parents=True, exist_ok=True)
    file = entry / "features.f16"
    shape = (len(tokens), encoder.num_features)
    done = _done(entry) if file.exists() else 0
    if len(tokens) == 0:
        return np.empty(shape, dtype=np.float16)
    advance(done)
    if done < len(tokens):
        for first in range(done, len(tokens), _CHUNK_ROWS):
            rows = np.arange(first, min(first + _CHUNK_ROWS, len(tokens)))
            of_rows = None if segments is None else segments.take(rows)
            # The rows reach the disk before the mark that says so.
            _put(file, first, encode_tokens(encoder, tokens.take(rows), of_rows))
            _mark(entry, int(rows[-1]) + 1)
            advance(len(rows))
    features: NDArray[np.float16] = np.memmap(file, dtype=np.float16, mode="r", shape=shape)
    return features


@torch.inference_mode()
def encode_tokens(
    encoder: TextEncoder, tokens: Ragged, segments: Ragged | None = None
) -> NDArray[np.float16]:
    """Pooled states [N, E], in batches of like length, on the encoder's device."""
    device = next(encoder.parameters()).device
    most = _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_ELSEWHERE)
    lengths = tokens.lengths
    found = np.empty((len(tokens), encoder.num_features), dtype=np.float16)
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and lengths[order[last]] * (last + 1 - first) <= most:
            last += 1
        rows = order[first:last]
        input_ids, mask = pad(tokens.take(rows), encoder.config.pad_id)
        given = [input_ids.to(device), mask.to(device)]
        if segments is not None:
            given.append(pad(segments.take(rows), 0)[0].to(device))
        found[rows] = encoder(*given).half().cpu().numpy()
        first = last
    return found


def encoder_digest(encoder: TextEncoder) -> str:
    """SHA-256 over an encoder's configuration, weights and dtype, hex."""
    digest = hashlib.sha256(json.dumps(encoder.config.to_json(), sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _key(digest: str, tokens: Ragged, segments: Ragged | None) -> str:
    """Token ids stand for the texts, the tokenizer and its settings at once."""
    of = hashlib.sha256(digest.encode())
    more = () if segments is None else (segments.values,)
    for array in (tokens.indptr, tokens.values, *more):
        of.update(np.ascontiguousarray(array).data)
    return of.hexdigest()[:32]


def _done(entry: Path) -> int:
    try:
        return int(json.loads((entry / "done.json").read_bytes())["rows"])
    except FileNotFoundError:
        return 0


def _put(file: Path, first: int, rows: NDArray[np.float16]) -> None:
    # Not through the map: a full disk would end the process there, without an exception.
    with writing(file), file.open("r+b" if first else "wb") as kept:
        kept.seek(first * rows.shape[1] * rows.itemsize)
        kept.write(rows.data)
        kept.flush()
        os.fsync(kept.fileno())


def _mark(entry: Path, rows: int) -> None:
    with written_whole(entry / "done.json") as fresh:
        fresh.write_text(json.dumps({"rows": rows}))
