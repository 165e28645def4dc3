"""The flagship: one encoder pass for department, leaf and attributes.

    input_ids  -> transformer -> pooled CLS states -> norm -\\
    hashed_ids -> embedding bag ------------------> norm ---- concat -> hidden layer -> heads
    rest_ids   -> embedding bag ------------------> norm ---/
    bullets_ids -> embedding bag -----------------> norm --/
    whole_ids  -> embedding bag ------------------> norm -/

The encoder brings what its pre-training knew (dhpc-amazon, C.1), the bags of hashed words and
n-grams what its vocabulary has no pieces for, and a memory of names. All feed the same heads. The
encoder, the second bag (bullets and description, apart from the title), the third (bullets apart
from both), the fourth (all fields once more, together), the hidden layer and the category that
attributes are told may each be absent.

Legend: B products, T tokens, M members, E encoder features, D features of a member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bags import BagInput, Vocabulary, mean_input
from models.device_masks import DeviceMasks
from models.encoders import EncoderConfig, TextEncoder, fast_dtype, pad, serve_in
from models.errors import ModelError
from models.flagship_preparer import (
    BAG_IDS,
    BULLETS_IDS,
    HASHED_IDS,
    REST_IDS,
    WHOLE_IDS,
    FlagshipPreparer,
)
from models.hashing import HashingConfig
from models.heads import AttributeHead, CascadeHead
from models.labels import LabelSpace
from models.masked_attributes import MaskedAttributes
from models.members import joined
from models.mixing import CategoryTold, FeatureMixer
from models.predict import leaf_rows
from models.predictor import CategoryScores, Encoder, LabelScores, Predictor
from models.prepare import Prepared, Ragged
from models.release import Release
from models.rivals import Rivals
from models.taxonomy import Taxonomy, attribute_rows
from models.tokens import INPUT_IDS, TOKENIZER_FILE, TextTokenizer

__all__ = [
    "FlagshipConfig",
    "FlagshipNet",
    "load_flagship",
    "predictor_of",
]

# First weights of a bag's table. On 20,000 of market's products 0.02 in place of 0.2 gave 1.5
# points of accuracy and 3.5 of macro F1 where a vocabulary keeps the rare n-grams apart.
_STD, _STD_OF_KNOWN = 0.2, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagshipConfig:
    """Everything that makes a flagship but its weights. Part of a release.

    Attributes:
        encoder: None: the bags read alone.
        max_tokens: the encoder reads no further.
        hashing: of all fields, or of the title where ``rest_hashing`` is given.
        rest_hashing: of bullets and description, which then have a bag of their own.
        bullets_hashing: of bullets, where they are not the rest's but have a bag of their own.
        whole_hashing: of all fields, where they have a bag beside the title's and the rest's.
        members: networks side by side, whose mean answers.
        whole_members: so many of them read, of the bags, that of all fields alone.
        bag_dim: width of a hashed bag's embeddings, of each member.
        bag_rows, rest_rows, bullets_rows, whole_rows: rows of the tables where a vocabulary says
            which buckets have one; None: every bucket has.
        hidden: whether a hidden layer lies before the heads.
        category_dim: width of the category's embedding that the attribute head is told; 0: it is
            not told.
        exclusive: ids of the attributes of which a product has one value, where labels' scores
            are calibrated and know their rivals (``models.rivals``); None: they are the head's.
    """

    encoder: EncoderConfig | None
    hashing: HashingConfig = field(default_factory=HashingConfig)
    max_tokens: int = 96
    bag_dim: int = 128
    members: int = 1
    whole_members: int = 0
    rest_hashing: HashingConfig | None = None
    bullets_hashing: HashingConfig | None = None
    whole_hashing: HashingConfig | None = None
    bag_rows: int | None = None
    rest_rows: int | None = None
    bullets_rows: int | None = None
    whole_rows: int | None = None
    hidden: bool = False
    category_dim: int = 0
    exclusive: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 8 or min(self.bag_dim, self.members) < 1 or self.category_dim < 0:
            raise ValueError(
                f"max_tokens must be at least 8, bag_dim and members 1 and category_dim 0, got "
                f"{self.max_tokens}, {self.bag_dim}, {self.members}, {self.category_dim}"
            )
        if self.rest_hashing is None and (self.bullets_hashing or self.whole_hashing):
            raise ValueError("bullets and all fields have a bag only where the rest has one")
        if not 0 <= self.whole_members < self.members:
            raise ValueError(
                f"whole_members must be fewer than members, got {self.whole_members} of "
                f"{self.members}"
            )
        if self.whole_members and self.whole_hashing is None:
            raise ValueError(f"whole_members={self.whole_members} need whole_hashing")
        for rows in self.rows.values():
            if rows is not None and rows < 1:
                raise ValueError(f"a bag has at least one row, got {rows}")

    @property
    def hashings(self) -> dict[str, HashingConfig]:
        """Of each bag, by the name of its array."""
        every = (self.hashing, self.rest_hashing, self.bullets_hashing, self.whole_hashing)
        pairs = zip(BAG_IDS, every, strict=True)
        return {name: each for name, each in pairs if each is not None}

    @property
    def rows(self) -> dict[str, int | None]:
        """Of each bag's table where a vocabulary says which, by the name of its array."""
        every = (self.bag_rows, self.rest_rows, self.bullets_rows, self.whole_rows)
        pairs = zip(BAG_IDS, every, strict=True)
        return {name: rows for name, rows in pairs if name in self.hashings}

    def attribute_of(self, taxonomy: Taxonomy, labels: LabelSpace) -> list[int]:
        """What ``FlagshipNet`` needs of labels' attributes, [L]; empty where it needs nothing."""
        if self.exclusive is None:
            return []
        return attribute_rows(taxonomy, labels, self.exclusive)

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in _OWN_JSON},
            "encoder": None if self.encoder is None else self.encoder.to_json(),
            **{
                key: None if hashing is None else hashing.to_json()
                for key, hashing in ((key, getattr(self, key)) for key in _HASHINGS)
            },
            "exclusive": None if self.exclusive is None else list(self.exclusive),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FlagshipConfig:
        """What ``to_json`` wrote.

        Raises:
            ModelError: fields missing, unknown or out of range.
        """
        try:
            encoder, exclusive = raw["encoder"], raw.get("exclusive")
            given = {key: value for key, value in raw.items() if key not in _OWN_JSON}
            for key in _HASHINGS:
                # The first bag is there always.
                if key == "hashing" or raw.get(key) is not None:
                    given[key] = HashingConfig.from_json(raw[key])
            return cls(
                **given,
                encoder=None if encoder is None else EncoderConfig.from_json(encoder),
                exclusive=None if exclusive is None else tuple(map(str, exclusive)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the release's config is not a flagship's: {error!r}") from error


_HASHINGS = ("hashing", "rest_hashing", "bullets_hashing", "whole_hashing")
_OWN_JSON = ("encoder", "exclusive", *_HASHINGS)


class FlagshipNet(nn.Module):
    """Encoder, vocabularies, mixer and heads; either head may be absent, not both.

    Args:
        attribute_of: [L], ``taxonomy.attribute_rows`` of the config's exclusive attributes; needed
            where they are not None.
    """

    def __init__(
        self,
        config: FlagshipConfig,
        *,
        departments: Sequence[int],
        num_labels: int,
        encoder: TextEncoder | None = None,
        vocabularies: Sequence[Vocabulary] | None = None,
        attribute_of: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if encoder is None and config.encoder is not None:
            encoder = TextEncoder(config.encoder)
        self.encoder = encoder
        rows = config.rows
        if vocabularies is None:
            vocabularies = [Vocabulary(each) for each in rows.values() if each is not None]
        self.vocabularies = nn.ModuleList(vocabularies)
        sizes = {name: rows[name] or of.buckets for name, of in config.hashings.items()}
        self.mixer = FeatureMixer(
            encoder_features=0 if encoder is None else encoder.num_features,
            bag_rows=sizes[HASHED_IDS],
            rest_rows=sizes.get(REST_IDS, 0),
            bullets_rows=sizes.get(BULLETS_IDS, 0),
            whole_rows=sizes.get(WHOLE_IDS, 0),
            bag_dim=config.bag_dim,
            hidden=config.hidden,
            dropout=dropout,
            bag_std=_STD if config.bag_rows is None else _STD_OF_KNOWN,
            members=config.members,
            whole_members=config.whole_members,
        )
        members, width = config.members, self.mixer.num_features
        self.category = CascadeHead(members * width, departments) if departments else None
        self.told: CategoryTold | None = None
        if num_labels and departments and config.category_dim:
            self.told = CategoryTold(width, len(departments), config.category_dim, members)
            width = self.told.num_features
        self.attribute = AttributeHead(members * width, num_labels) if num_labels else None
        self.rivals: Rivals | None = None
        if num_labels and config.exclusive is not None:
            if len(attribute_of) != num_labels:
                raise ValueError(f"{num_labels} labels have {len(attribute_of)} attributes")
            self.rivals = Rivals(attribute_of)

    def bag_inputs(self, arrays: Mapping[str, Ragged], device: torch.device) -> list[BagInput]:
        """What each bag sums, of a batch's hashed ids."""
        hashed = [arrays[name] for name in BAG_IDS if name in arrays]
        if not len(self.vocabularies):
            return [mean_input(each, device) for each in hashed]
        return [known(each) for known, each in zip(self.vocabularies, hashed, strict=True)]


class _BatchEncoder:
    """The network's features of a prepared batch, shared by both models."""

    def __init__(self, net: FlagshipNet, device: torch.device) -> None:
        self._net = net
        self._device = device

    @torch.inference_mode()
    def encode(self, batch: Prepared) -> Tensor:
        """Features [B, M, D], float32."""
        encoder = self._net.encoder
        encoded = None
        if encoder is not None:
            input_ids, attention_mask = pad(batch.arrays[INPUT_IDS], encoder.config.pad_id)
            encoded = encoder(
                input_ids.to(self._device, non_blocking=True),
                attention_mask.to(self._device, non_blocking=True),
            )
        features: Tensor = self._net.mixer(
            encoded, *self._net.bag_inputs(batch.arrays, self._device)
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
        return self._head.best(joined(features), top_k)


class _Attributes:
    """Scores labels by members' features, which may be told the category."""

    def __init__(
        self, told: CategoryTold | None, attributes: MaskedAttributes, leaf_of: NDArray[np.int64]
    ) -> None:
        self._told = told
        self._attributes = attributes
        self._leaf_of = leaf_of
        self.encoder = attributes.encoder
        self.labels = attributes.labels
        self.thresholds = attributes.thresholds

    @torch.inference_mode()
    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        if self._told is not None:
            leaves = np.where(category_rows < 0, -1, self._leaf_of[category_rows])
            features = self._told(features, torch.from_numpy(leaves).to(features.device))
        return self._attributes.score_labels(joined(features), masks, mask_rows, category_rows)


def predictor_of(
    net: FlagshipNet,
    preparer: FlagshipPreparer,
    *,
    categories: LabelSpace | None,
    labels: LabelSpace | None,
    category_thresholds: NDArray[np.float32] | None,
    label_thresholds: NDArray[np.float32] | None,
    taxonomy: Taxonomy | None = None,
    dtype: torch.dtype = torch.float32,
) -> Predictor:
    """A predictor of a network in evaluation mode, which it takes over.

    Args:
        taxonomy: the release's; needed where the attribute head is told the category.
        dtype: the encoder's; mixer and heads stay in float32.
    """
    net.eval().requires_grad_(False)
    serve_in(net, dtype)
    device = next(net.parameters()).device
    encoder = _BatchEncoder(net, device)
    category: _Categories | None = None
    attribute: _Attributes | None = None
    if net.category is not None and categories is not None and category_thresholds is not None:
        category = _Categories(net.category, encoder, categories, category_thresholds)
    if net.attribute is not None and labels is not None and label_thresholds is not None:
        leaf_of = np.empty(0, dtype=np.int64)
        if net.told is not None:
            if taxonomy is None or categories is None:
                raise ValueError("an attribute head that is told the category needs the taxonomy")
            leaf_of = np.full(len(taxonomy.categories), -1, dtype=np.int64)
            leaf_of[leaf_rows(taxonomy, categories)] = np.arange(len(categories))
        masked = MaskedAttributes(net.attribute, encoder, labels, label_thresholds, net.rivals)
        attribute = _Attributes(net.told, masked, leaf_of)
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
    labels = release.labels or LabelSpace(())
    net = release.filled(
        lambda: FlagshipNet(
            config,
            departments=departments,
            num_labels=len(labels),
            attribute_of=config.attribute_of(release.taxonomy, labels),
        )
    )
    tokenizer = None
    if config.encoder is not None:
        tokenizer = TextTokenizer(release.read(TOKENIZER_FILE), config.max_tokens)
        if net.encoder is not None:
            net.encoder.check_reads(tokenizer.vocabulary, tokenizer.max_tokens)
    return predictor_of(
        net.to(device),
        FlagshipPreparer(tokenizer, config.hashings),
        categories=release.categories,
        labels=release.labels,
        category_thresholds=release.category_thresholds,
        label_thresholds=release.label_thresholds,
        taxonomy=release.taxonomy,
        dtype=fast_dtype(device) if dtype == "auto" else getattr(torch, dtype),
    )
