"""The flagship: one encoder pass for department, leaf and attributes.

    input_ids  -> transformer -> pooled CLS states -> norm -\\
                                                             concat -> heads
    hashed_ids -> embedding bag ------------------> norm ---/

The encoder brings what its pre-training knew (dhpc-amazon, C.1), the bag of hashed words and
n-grams what its vocabulary has no pieces for. Both feed the same heads.

Legend: B products, T tokens, E encoder features, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.encoders import EncoderConfig, TextEncoder, fast_dtype
from models.errors import ModelError
from models.hashing import HashingConfig, hash_fields
from models.heads import AttributeHead, CascadeHead
from models.labels import LabelSpace
from models.masked_attributes import MaskedAttributes
from models.predictor import CategoryScores, Encoder, Predictor
from models.prepare import Prepared, Ragged
from models.product import Product
from models.release import Release
from models.tokens import TextTokenizer

__all__ = [
    "HASHED_IDS",
    "INPUT_IDS",
    "TOKENIZER_FILE",
    "FeatureMixer",
    "FlagshipConfig",
    "FlagshipNet",
    "FlagshipPreparer",
    "bag_inputs",
    "load_flagship",
    "pad",
    "predictor_of",
]

INPUT_IDS = "input_ids"
HASHED_IDS = "hashed_ids"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagshipConfig:
    """Everything that makes a flagship but its weights. Part of a release.

    Attributes:
        max_tokens: the encoder reads no further.
        bag_dim: width of the hashed bag's embeddings.
    """

    encoder: EncoderConfig
    hashing: HashingConfig = field(default_factory=HashingConfig)
    max_tokens: int = 96
    bag_dim: int = 128

    def __post_init__(self) -> None:
        if self.max_tokens < 8 or self.bag_dim < 1:
            raise ValueError(
                f"max_tokens must be at least 8 and bag_dim 1, got {self.max_tokens}, "
                f"{self.bag_dim}"
            )

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "encoder": self.encoder.to_json(),
            "hashing": self.hashing.to_json(),
            "max_tokens": self.max_tokens,
            "bag_dim": self.bag_dim,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FlagshipConfig:
        """What ``to_json`` wrote.

        Raises:
            ModelError: fields missing, unknown or out of range.
        """
        try:
            return cls(
                encoder=EncoderConfig.from_json(raw["encoder"]),
                hashing=HashingConfig.from_json(raw["hashing"]),
                max_tokens=raw["max_tokens"],
                bag_dim=raw["bag_dim"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the release's config is not a flagship's: {error!r}") from error


class FlagshipPreparer:
    """Products to token ids and hashed ids; a product costs its tokens."""

    def __init__(self, tokenizer: TextTokenizer, hashing: HashingConfig) -> None:
        self.tokenizer = tokenizer
        self.hashing = hashing

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """Arrays ``input_ids`` and ``hashed_ids`` (both int32), a row a product."""
        tokens = self.tokenizer.encode(products)
        hashed = hash_fields(
            [(p.title, " ".join(p.bullets), p.description) for p in products], self.hashing
        )
        costs = np.maximum(tokens.lengths, 1).astype(np.int32)
        return Prepared({INPUT_IDS: tokens, HASHED_IDS: hashed}, costs)


class FeatureMixer(nn.Module):
    """Encoder features and hashed ids to the features that all heads read.

    Args:
        dropout: share of features left out in training, after mixing.
    """

    def __init__(self, config: FlagshipConfig, encoder_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder_features)
        self.bag = nn.EmbeddingBag(config.hashing.buckets, config.bag_dim, mode="mean", sparse=True)
        # Means of some 200 embeddings: the norm behind makes the scale free, this sets how far
        # a step of the optimiser moves one of them.
        nn.init.normal_(self.bag.weight, std=0.2)
        self.bag_norm = nn.LayerNorm(config.bag_dim)
        self.dropout = dropout
        self.num_features = encoder_features + config.bag_dim

    def forward(self, encoded: Tensor, hashed_ids: Tensor, offsets: Tensor) -> Tensor:
        """Features [B, D] of encoded [B, E], flat ids [nnz] and where each product's start [B]."""
        bag = self.bag_norm(self.bag(hashed_ids, offsets))
        features = torch.cat([self.norm(encoded), bag], dim=1)
        return functional.dropout(features, self.dropout, self.training)


class FlagshipNet(nn.Module):
    """Encoder, mixer and heads; either head may be absent, not both."""

    def __init__(
        self,
        config: FlagshipConfig,
        *,
        departments: Sequence[int],
        num_labels: int,
        encoder: TextEncoder | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder if encoder is not None else TextEncoder(config.encoder)
        self.mixer = FeatureMixer(config, self.encoder.num_features, dropout)
        width = self.mixer.num_features
        self.category = CascadeHead(width, departments) if departments else None
        self.attribute = AttributeHead(width, num_labels) if num_labels else None


class _BatchEncoder:
    """The network's features of a prepared batch, shared by both models."""

    def __init__(self, net: FlagshipNet, device: torch.device, pad_id: int) -> None:
        self._net = net
        self._device = device
        self._pad_id = pad_id

    @torch.inference_mode()
    def encode(self, batch: Prepared) -> Tensor:
        """Features [B, D], float32."""
        tokens = batch.arrays[INPUT_IDS]
        input_ids, attention_mask = pad(tokens, self._pad_id)
        encoded = self._net.encoder(
            input_ids.to(self._device, non_blocking=True),
            attention_mask.to(self._device, non_blocking=True),
        )
        features: Tensor = self._net.mixer(
            encoded, *bag_inputs(batch.arrays[HASHED_IDS], self._device)
        )
        return features


class _Categories:
    def __init__(
        self,
        head: CascadeHead,
        encoder: _BatchEncoder,
        categories: LabelSpace,
        thresholds: NDArray[np.float32],
    ) -> None:
        self._head = head
        self.encoder: Encoder = encoder
        self.categories = categories
        self.thresholds = thresholds

    def score_categories(self, features: Tensor, top_k: int) -> CategoryScores:
        return self._head.best(features, top_k)


def predictor_of(
    net: FlagshipNet,
    preparer: FlagshipPreparer,
    *,
    categories: LabelSpace | None,
    labels: LabelSpace | None,
    category_thresholds: NDArray[np.float32] | None,
    label_thresholds: NDArray[np.float32] | None,
    dtype: torch.dtype = torch.float32,
) -> Predictor:
    """A predictor of a network in evaluation mode, which it takes over.

    Args:
        dtype: the encoder's; mixer and heads stay in float32.
    """
    net.eval().requires_grad_(False)
    net.encoder.to(dtype)
    device = next(net.parameters()).device
    encoder = _BatchEncoder(net, device, net.encoder.config.pad_id)
    category: _Categories | None = None
    attribute: MaskedAttributes | None = None
    if net.category is not None and categories is not None and category_thresholds is not None:
        category = _Categories(net.category, encoder, categories, category_thresholds)
    if net.attribute is not None and labels is not None and label_thresholds is not None:
        attribute = MaskedAttributes(net.attribute, encoder, labels, label_thresholds)
    return Predictor(preparer, category, attribute)


def load_flagship(
    release: Release, device: torch.device, dtype: Literal["auto", "float32", "bfloat16"]
) -> Predictor:
    """A release's flagship on ``device``.

    Args:
        dtype: of the encoder; ``auto`` is bfloat16 where the device multiplies it in hardware.

    Raises:
        ModelError: its config or weights are not a flagship's.
    """
    config = FlagshipConfig.from_json(release.config)
    departments: list[int] = []
    if release.categories is not None:
        row_of = {name: row for row, name in enumerate(release.taxonomy.departments)}
        departments = [
            row_of[release.taxonomy.department_of(leaf)] for leaf in release.categories.ids
        ]
    net = FlagshipNet(
        config,
        departments=departments,
        num_labels=len(release.labels) if release.labels is not None else 0,
    )
    try:
        net.load_state_dict(release.weights(), assign=True)
    except RuntimeError as error:
        raise ModelError(f"the weights of {release.id} do not fit its config: {error}") from error
    tokenizer = TextTokenizer(release.read(TOKENIZER_FILE), config.max_tokens)
    return predictor_of(
        net.to(device),
        FlagshipPreparer(tokenizer, config.hashing),
        categories=release.categories,
        labels=release.labels,
        category_thresholds=release.category_thresholds,
        label_thresholds=release.label_thresholds,
        dtype=fast_dtype(device) if dtype == "auto" else getattr(torch, dtype),
    )


def pad(tokens: Ragged, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] and attention mask [B, T], int64, T the longest row (at least 1)."""
    lengths = tokens.lengths
    longest = max(1, int(lengths.max(initial=0)))
    real = np.arange(longest) < lengths[:, None]
    padded = np.full(real.shape, pad_id, dtype=np.int64)
    padded[real] = tokens.values
    return torch.from_numpy(padded), torch.from_numpy(real.astype(np.int64))


def bag_inputs(hashed: Ragged, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat ids [nnz] and where each product's start [B], int32, for an embedding bag."""
    return (
        torch.from_numpy(hashed.values.astype(np.int32, copy=False)).to(device, non_blocking=True),
        torch.from_numpy(hashed.indptr[:-1].astype(np.int32)).to(device, non_blocking=True),
    )
