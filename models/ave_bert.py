"""BERT with label masking (ave-label-masking): attributes alone, given a category.

    [CLS] title [SEP] bullets, description -> transformer -> last l CLS states, concatenated
                                                         -> one linear layer -> relevant labels

The text is in NFKC since it was parsed (``models.product``). The paper's products have no bullets;
here they are read as the beginning of the description. Beside the one linear layer there are the
paper's two rows with a classifier for each category, sharing the encoder: a classifier of a leaf
has a row for each label that is relevant to it, one of a top category (department) for each label
that is relevant to any leaf below it.

Legend: B products, E features, L labels, R rows of the linear layer (R = L for one classifier).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.device_masks import DeviceMasks
from models.encoders import EncoderConfig, TextEncoder, fast_dtype, pad, serve_in
from models.errors import ModelError
from models.heads import AttributeHead
from models.labels import LabelSpace, Masks
from models.masked_attributes import MaskedAttributes
from models.predictor import Encoder, LabelScores, Predictor
from models.prepare import Prepared, Ragged
from models.product import Product
from models.release import Release
from models.taxonomy import Taxonomy, compile_masks
from models.tokens import INPUT_IDS, TOKENIZER_FILE, TextTokenizer

__all__ = [
    "AveBertConfig",
    "AveBertNet",
    "AveBertPreparer",
    "ClassifierRows",
    "Classifiers",
    "load_ave_bert",
    "predictor_of",
]

Classifiers = Literal["one", "leaf", "top"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AveBertConfig:
    """Everything that makes an ``ave_bert`` but its weights. Part of a release.

    Attributes:
        encoder: with the last l layers chosen and concatenated.
        max_tokens: the encoder reads no further.
        classifiers: one for all products, or one for each leaf or top category.
    """

    encoder: EncoderConfig
    max_tokens: int = 512
    classifiers: Classifiers = "one"

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "encoder": self.encoder.to_json(),
            "max_tokens": self.max_tokens,
            "classifiers": self.classifiers,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> AveBertConfig:
        """What ``to_json`` wrote.

        Raises:
            ModelError: fields missing, unknown or out of range.
        """
        try:
            if raw["classifiers"] not in ("one", "leaf", "top"):
                raise ValueError(f"classifiers {raw['classifiers']!r}")
            return cls(
                encoder=EncoderConfig.from_json(raw["encoder"]),
                max_tokens=raw["max_tokens"],
                classifiers=raw["classifiers"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the release's config is not an ave_bert's: {error!r}") from error


class ClassifierRows:
    """Which rows of the linear layer stand for which labels, and which belong to a category.

    Attributes:
        names: of the classifiers, their categories' ids; of a single one the empty string.
        label_of, classifier_of: [R], int64, of each row.
        relevant: rows of the labels that are relevant to each category.
        all_of_group: every row of each category's classifier.
        groups: [categories], int64, the classifier of each category; -1: it has none.

    Args:
        category_ids: the categories that ``relevant``, ``all_of_group`` and ``groups`` are for.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        labels: LabelSpace,
        classifiers: Classifiers,
        category_ids: Sequence[str],
    ) -> None:
        num_labels = len(labels)
        masks = compile_masks(taxonomy, category_ids, labels)
        if classifiers == "one":
            everything = np.arange(num_labels, dtype=np.uint32)
            self._keys = np.arange(num_labels, dtype=np.int64)
            self.groups = np.zeros(len(category_ids), dtype=np.int64)
            names: Sequence[str] = ("",)
            members = [everything]
        else:
            leaves = taxonomy.leaves
            if classifiers == "leaf":
                names = leaves
                group_of_leaf = np.arange(len(leaves))
                row_of = {leaf: row for row, leaf in enumerate(leaves)}
                found = [row_of.get(each, -1) for each in category_ids]
            else:
                names = taxonomy.departments
                row_of = {name: row for row, name in enumerate(names)}
                group_of_leaf = np.array([row_of[taxonomy.department_of(leaf)] for leaf in leaves])
                found = [row_of[taxonomy.department_of(each)] for each in category_ids]
            self.groups = np.array(found, dtype=np.int64)
            of_leaves = compile_masks(taxonomy, leaves, labels)
            owner = np.repeat(group_of_leaf, np.diff(of_leaves.indptr))
            self._keys = np.unique(owner * num_labels + of_leaves.indices.astype(np.int64))
            ends = np.searchsorted(self._keys, np.arange(1, len(names)) * num_labels)
            rows = np.arange(len(self._keys), dtype=np.uint32)
            members = np.split(rows, ends)
        self._num_labels = num_labels
        self.label_of = self._keys % num_labels
        self.classifier_of = self._keys // num_labels
        self.names = tuple(names)
        nothing = np.empty(0, dtype=np.uint32)
        self.all_of_group = Masks.from_rows(
            [members[group] if group >= 0 else nothing for group in self.groups.tolist()],
            len(self._keys),
        )
        self.relevant = Masks.from_rows(
            [
                self.rows_of(np.full(len(mask), group), mask.astype(np.int64)).astype(np.uint32)
                if group >= 0
                else nothing
                for group, mask in (
                    (group, masks.row(row)) for row, group in enumerate(self.groups.tolist())
                )
            ],
            len(self._keys),
        )

    def __len__(self) -> int:
        return len(self._keys)

    def rows_of(
        self, groups: NDArray[np.int64], label_rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Rows of labels [n] in classifiers [n]; a label that the classifier lacks is left out."""
        if not len(self._keys):
            return np.empty(0, dtype=np.int64)
        wanted = groups * self._num_labels + label_rows
        rows = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found: NDArray[np.int64] = rows[self._keys[rows] == wanted].astype(np.int64)
        return found


class AveBertPreparer:
    """Products to token ids; a product costs its tokens."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer

    def prepare(self, products: Sequence[Product]) -> Prepared:
        """The array ``input_ids``, int32, a row a product."""
        tokens = self.tokenizer.encode(products)
        return Prepared({INPUT_IDS: tokens}, np.maximum(tokens.lengths, 1).astype(np.int32))


class AveBertNet(nn.Module):
    """Encoder and linear layer.

    Args:
        num_rows: R. encoder: a trained one; None: of the configuration, without weights.
        dropout: share of features left out in training.
    """

    def __init__(
        self,
        config: AveBertConfig,
        num_rows: int,
        encoder: TextEncoder | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder if encoder is not None else TextEncoder(config.encoder)
        self.attribute = AttributeHead(self.encoder.num_features, num_rows)
        self.dropout = dropout

    def dropped(self, features: Tensor) -> Tensor:
        """Features [B, E] as the linear layer reads them: in training some are left out."""
        return functional.dropout(features, self.dropout, self.attribute.training)


class _BatchEncoder:
    def __init__(self, encoder: TextEncoder, device: torch.device) -> None:
        self._encoder = encoder
        self._device = device

    @torch.inference_mode()
    def encode(self, batch: Prepared) -> Tensor:
        """Features [B, E], float32."""
        tokens: Ragged = batch.arrays[INPUT_IDS]
        input_ids, attention_mask = pad(tokens, self._encoder.config.pad_id)
        features: Tensor = self._encoder(
            input_ids.to(self._device, non_blocking=True),
            attention_mask.to(self._device, non_blocking=True),
        )
        return features


class _ManyClassifiers:
    """A category's own rows stand for its relevant labels; ties go to the lowest label."""

    def __init__(
        self,
        head: AttributeHead,
        encoder: _BatchEncoder,
        labels: LabelSpace,
        thresholds: NDArray[np.float32],
        rows: ClassifierRows,
    ) -> None:
        device = head.weight.device
        self._head = head
        self._label_of = rows.label_of
        self._masks = DeviceMasks.from_masks(rows.relevant, device)
        self._thresholds = torch.from_numpy(thresholds[rows.label_of]).to(device)
        self.encoder: Encoder = encoder
        self.labels = labels
        self.thresholds = thresholds

    def score_labels(
        self,
        features: Tensor,
        masks: DeviceMasks,
        mask_rows: NDArray[np.int64],
        category_rows: NDArray[np.int64],
    ) -> LabelScores:
        found = self._head.labels_above(features, self._masks, category_rows, self._thresholds)
        return LabelScores(found.indptr, self._label_of[found.rows], found.scores)


def predictor_of(
    net: AveBertNet,
    config: AveBertConfig,
    preparer: AveBertPreparer,
    *,
    taxonomy: Taxonomy,
    labels: LabelSpace,
    thresholds: NDArray[np.float32],
    dtype: torch.dtype = torch.float32,
) -> Predictor:
    """A predictor of a network in evaluation mode, which it takes over.

    Args:
        thresholds: [L]. dtype: the encoder's; the linear layer stays in float32.
    """
    net.eval().requires_grad_(False)
    serve_in(net, dtype)
    encoder = _BatchEncoder(net.encoder, net.attribute.weight.device)
    if config.classifiers == "one":
        one = MaskedAttributes(net.attribute, encoder, labels, thresholds)
        return Predictor(preparer, None, one)
    rows = ClassifierRows(taxonomy, labels, config.classifiers, tuple(taxonomy.categories))
    many = _ManyClassifiers(net.attribute, encoder, labels, thresholds, rows)
    return Predictor(preparer, None, many)


def load_ave_bert(
    release: Release, device: torch.device, dtype: Literal["auto", "float32", "bfloat16"]
) -> Predictor:
    """A release's model on ``device``.

    Args:
        dtype: of the encoder; ``auto`` is bfloat16 where the device multiplies it in hardware.

    Raises:
        ModelError: its config, label space or weights are not an ``ave_bert``'s.
    """
    config = AveBertConfig.from_json(release.config)
    labels, thresholds = release.labels, release.label_thresholds
    if labels is None or thresholds is None:
        raise ModelError(f"release {release.id}: an ave_bert has labels, this one has none")
    num_rows = len(labels)
    if config.classifiers != "one":
        num_rows = len(ClassifierRows(release.taxonomy, labels, config.classifiers, ()))
    net = release.filled(lambda: AveBertNet(config, num_rows))
    tokenizer = TextTokenizer(release.read(TOKENIZER_FILE), config.max_tokens)
    net.encoder.check_reads(tokenizer.vocabulary, tokenizer.max_tokens)
    return predictor_of(
        net.to(device),
        config,
        AveBertPreparer(tokenizer),
        taxonomy=release.taxonomy,
        labels=labels,
        thresholds=thresholds,
        dtype=fast_dtype(device) if dtype == "auto" else getattr(torch, dtype),
    )
