"""Features that are computed once for all rows of a table that read the same encoder.

Rows with a frozen encoder differ above it alone, and on a CPU the encoder is nearly all the work.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from models.predictor import Encoder
from models.prepare import Prepared
from models.release import Release

__all__ = ["EncodedBatches"]

# What a release has above its features.
_ABOVE = "attribute."
_ABOVE_KEY = "classifiers"


class EncodedBatches:
    """Features of the batches that one encoder has met; those of the encoder before are dropped."""

    def __init__(self) -> None:
        self._of = ""
        self._kept: dict[bytes, Tensor] = {}

    def around(self, release: Release, encoder: Encoder) -> Encoder:
        """The release's encoder, which does no batch again that an equal encoder has done."""
        digest = _digest(release)
        if digest != self._of:
            self._of, self._kept = digest, {}
        return _Remembering(encoder, self._kept)


@dataclass(frozen=True, slots=True)
class _Remembering:
    encoder: Encoder
    kept: dict[bytes, Tensor]

    def encode(self, batch: Prepared) -> Tensor:
        digest = hashlib.sha256()
        for name, rows in sorted(batch.arrays.items()):
            for array in (rows.indptr, rows.values):
                digest.update(f"{name} {array.dtype} {len(array)} ".encode() + array.tobytes())
        key = digest.digest()
        if key not in self.kept:
            self.kept[key] = self.encoder.encode(batch)
        return self.kept[key]


def _digest(release: Release) -> str:
    """Of all that decides the features: configuration and weights but those above them."""
    config = {key: value for key, value in release.config.items() if key != _ABOVE_KEY}
    digest = hashlib.sha256(json.dumps([release.architecture, config], sort_keys=True).encode())
    for name, tensor in sorted(release.weights().items()):
        if not name.startswith(_ABOVE):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
