"""ave-label-masking as a system: BERT, one linear layer to all labels, label-masked loss.

With ``masking: false`` the loss counts every label of the label space (the paper's row "BERT");
with ``classifiers: leaf`` or ``top`` each category has a linear layer of its own, whose labels all
count, and a batch holds products of one category. Irrelevant labels are dropped in serving and in
measuring whatever the loss was, as the paper does for its baselines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.ave_bert import (
    AveBertConfig,
    AveBertNet,
    AveBertPreparer,
    ClassifierRows,
    predictor_of,
)
from models.device_masks import DeviceMasks
from models.encoders import last_layers, load_pretrained
from models.errors import SortimentError
from models.labels import LabelSpace
from models.masked_attributes import relevant_scores
from models.prepare import Ragged
from models.release_writing import write_release
from models.self_check import make_examples
from models.tokens import INPUT_IDS, TOKENIZER_FILE, TextTokenizer
from training.calibrate import attribute_thresholds
from training.encoding import encode_batch, encoder_place, split_features, training_dtype
from training.features import encoder_digest
from training.flagship_learner import Split, positive_labels
from training.losses import attribute_loss
from training.prepared import SplitOnDisk
from training.recipe import AveBertSettings
from training.row_adam import RowAdam
from training.system import Job
from training.targets import label_spaces

__all__ = ["AveBertLearner", "AveBertSystem", "attribute_spaces"]

_VALID_BATCH = 256


def attribute_spaces(job: Job) -> tuple[LabelSpace, LabelSpace]:
    """Categories and labels of the job's taxonomy.

    Raises:
        SortimentError: there are no labels.
    """
    categories, labels = label_spaces(job.taxonomy)
    if not len(labels):
        raise SortimentError(
            f"the taxonomy {job.taxonomy.name!r} has no attributes, and {job.recipe.name} learns "
            "nothing else"
        )
    return categories, labels


class AveBertSystem:
    """See ``models.ave_bert``."""

    def __init__(self, job: Job) -> None:
        settings = job.recipe.system
        if not isinstance(settings, AveBertSettings):
            raise TypeError(f"an ave_bert is not made from {type(settings).__name__}")
        self._job = job
        self._settings = settings
        self.categories, self.labels = attribute_spaces(job)
        pretrained = load_pretrained(
            encoder_place(settings.encoder),
            layers=lambda num_layers: last_layers(num_layers, settings.cls_layers),
            pooling="concat",
        )
        encoder = pretrained.encoder.to(job.device).eval()
        self._digest = encoder_digest(encoder)
        self._config = AveBertConfig(
            encoder=encoder.config,
            max_tokens=settings.max_tokens,
            classifiers=settings.classifiers,
        )
        tokenizer = TextTokenizer(pretrained.tokenizer, settings.max_tokens)
        encoder.check_reads(tokenizer.vocabulary, settings.max_tokens)
        self.preparer = AveBertPreparer(tokenizer)
        self.preparer_key = json.dumps(
            [
                "ave_bert",
                hashlib.sha256(pretrained.tokenizer).hexdigest(),
                settings.max_tokens,
            ]
        )
        self._rows = ClassifierRows(
            job.taxonomy, self.labels, settings.classifiers, self.categories.ids
        )
        self._net = AveBertNet(self._config, len(self._rows), encoder, settings.dropout)

    def identity(self) -> Mapping[str, Any]:
        """The encoder's weights and configuration."""
        return {"encoder": self._digest}

    def learn(self, train: SplitOnDisk, valid: SplitOnDisk) -> AveBertLearner:
        """Cached features for a frozen encoder; the loop's learner."""
        job = self._job
        loop = job.recipe.train
        if self._settings.gear == "finetune" and loop.checkpoint_gradients:
            self._net.encoder.checkpoint_gradients()
        self._examples = [
            replace(product, claimed_category=category)
            for product, category in zip(valid.examples, valid.example_categories, strict=True)
        ]
        self._learner = AveBertLearner(
            self._net,
            self._rows,
            self._split("training", train),
            self._split("valid", valid),
            self._settings,
            job.device,
            training_dtype(loop.precision, job.device),
            sparse=job.processes.count == 1,
        )
        return self._learner

    def publish(self, out: Path, epochs: int) -> dict[str, float]:
        """Thresholds of 0.5 or from valid; a release without a category model."""
        learner, recipe = self._learner, self._job.recipe
        owners, labels, scores = learner.label_scores(learner.valid_split)
        targets = learner.valid_split.targets
        num_labels = len(self.labels)
        positive = positive_labels(owners, labels, targets, num_labels)
        num_positives = np.bincount(
            np.asarray(targets.positives.values, dtype=np.int64), minlength=num_labels
        )
        thresholds = np.full(num_labels, 0.5, dtype=np.float32)
        if self._settings.thresholds == "tuned":
            thresholds = attribute_thresholds(scores, labels, positive, num_positives)
        taken = scores >= thresholds[labels]
        total = int(taken.sum()) + int(num_positives.sum())
        metrics = {
            "attribute_micro_f1_true_category": 2 * int((taken & positive).sum()) / max(1, total),
            "epochs": float(epochs),
            "products": float(len(learner.valid_split)),
        }
        weights = {
            key: tensor.detach().cpu().contiguous()
            for key, tensor in self._net.state_dict().items()
        }
        predictor = predictor_of(
            self._net,
            self._config,
            self.preparer,
            taxonomy=self._job.taxonomy,
            labels=self.labels,
            thresholds=thresholds,
        )
        write_release(
            out,
            name=recipe.name,
            version=recipe.version,
            architecture="ave_bert",
            config=self._config.to_json(),
            taxonomy=self._job.taxonomy,
            categories=None,
            labels=self.labels,
            category_thresholds=None,
            label_thresholds=thresholds,
            weights=weights,
            files={TOKENIZER_FILE: self.preparer.tokenizer.serialised},
            examples=make_examples(predictor, self._examples, self._job.taxonomy, self._job.device),
            metrics=metrics,
        )
        return metrics

    def _split(self, name: str, split: SplitOnDisk) -> Split:
        if self._settings.gear == "finetune":
            return Split(split.prepared, split.targets, None)
        features = split_features(
            name,
            self._net.encoder,
            split.prepared.arrays[INPUT_IDS],
            self._job.recipe.cache,
            digest=self._digest,
            progress=self._job.shows_progress,
        )
        return Split(split.prepared, split.targets, features)


class AveBertLearner:
    """The network with its splits: what the loop trains."""

    def __init__(
        self,
        net: AveBertNet,
        rows: ClassifierRows,
        train: Split,
        valid: Split,
        settings: AveBertSettings,
        device: torch.device,
        dtype: torch.dtype,
        *,
        sparse: bool = True,
    ) -> None:
        self.net = net.to(device)
        self.train_split = train
        self.valid_split = valid
        self._settings = settings
        self._device = device
        self._dtype = dtype
        self._sparse = sparse and settings.classifiers != "one"
        self._rows = rows
        self._relevant = DeviceMasks.from_masks(rows.relevant, device)
        self._counted = self._relevant
        if settings.classifiers != "one":
            self._counted = DeviceMasks.from_masks(rows.all_of_group, device)
        self.frozen = train.encoded is not None
        self.num_rows = len(train)
        self.lengths: NDArray[np.int64] | None = (
            None if self.frozen else train.prepared.arrays[INPUT_IDS].lengths
        )
        self.groups: NDArray[np.int64] | None = None
        if settings.classifiers != "one":
            self.groups = rows.groups[train.targets.leaves]
        parts: dict[str, nn.Module] = {"attribute": net.attribute}
        if not self.frozen:
            parts["encoder"] = net.encoder
        self.model: nn.Module = nn.ModuleDict(parts)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over all of it, as the paper has it (decoupled decay, 0 by default).

        Of several classifiers a batch moves its own alone, and no moments but its own: as if each
        were a layer by itself.
        """
        settings = self._settings
        rate, decay = settings.learning_rate, settings.weight_decay
        of_head = list(self.net.attribute.parameters())
        dense = [] if self.frozen else list(self.net.encoder.parameters())
        found: list[torch.optim.Optimizer] = []
        if settings.classifiers != "one":
            found.append(RowAdam(of_head, lr=rate))
        else:
            dense += of_head
        if dense:
            # One pass over weights and moments instead of ten.
            fused = self._device.type in ("cpu", "cuda") or None
            found.append(torch.optim.AdamW(dense, lr=rate, weight_decay=decay, fused=fused))
        return found

    def features(self, split: Split, rows: NDArray[np.int64]) -> Tensor:
        """Concatenated CLS states [B, E] of rows of a split, before dropout."""
        if split.encoded is not None:
            return torch.from_numpy(split.encoded[rows]).to(self._device).float()
        tokens = split.prepared.arrays[INPUT_IDS].take(rows)
        return encode_batch(self.net.encoder, tokens, self._device, self._dtype)

    def loss_of(self, rows: NDArray[np.int64], step: NDArray[np.int64] | None = None) -> Tensor:
        """Mean over labelled products of the summed loss of the labels that count (4.2)::

        BCE = - sum over j in M(x) of y_j log s_j + (1 - y_j) log(1 - s_j)
        """
        targets = self.train_split.targets
        mask_rows = targets.mask_rows[rows]
        labelled = int((targets.mask_rows[rows if step is None else step] >= 0).sum())
        positives = targets.positives.take(rows)
        features = self.net.dropped(self.features(self.train_split, rows))
        if self._settings.classifiers == "one" and not self._settings.masking:
            return self._loss_of_all(features, mask_rows >= 0, positives) / max(1, labelled)
        if self._settings.classifiers != "one":
            owners = np.repeat(targets.leaves[rows], positives.lengths)
            found = self._rows.rows_of(
                self._rows.groups[owners], np.asarray(positives.values, dtype=np.int64)
            )
            positives = Ragged(found, positives.indptr)
        return attribute_loss(
            self.net.attribute,
            features,
            self._counted,
            torch.from_numpy(mask_rows).to(self._device),
            torch.from_numpy(positives.indptr).to(self._device),
            torch.from_numpy(np.asarray(positives.values, dtype=np.int64)).to(self._device),
            labelled=labelled,
            sparse_grad=self._sparse,
        )

    def _loss_of_all(
        self, features: Tensor, labelled: NDArray[np.bool_], positives: Ragged
    ) -> Tensor:
        """The loss without masking (4.1), summed over labelled products.

        Where every label counts, one dense product is cheaper than a mask of all labels.
        """
        head = self.net.attribute
        true = torch.zeros(len(features), len(head.bias), device=self._device)
        owners = np.repeat(np.arange(len(features)), positives.lengths)
        true[torch.from_numpy(owners), torch.from_numpy(np.asarray(positives.values))] = 1
        kept = torch.from_numpy(np.flatnonzero(labelled)).to(self._device)
        logits = functional.linear(features[kept], head.weight, head.bias)
        return functional.binary_cross_entropy_with_logits(logits, true[kept], reduction="sum")

    @torch.no_grad()
    def label_scores(
        self, split: Split
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Product, label row and score of each relevant pair, [M] each; the true category given."""
        owners, labels, scores = [], [], []
        for first in range(0, len(split), _VALID_BATCH):
            rows = np.arange(first, min(first + _VALID_BATCH, len(split)))
            leaves = split.targets.leaves[rows]
            features = self.features(split, rows)
            found = relevant_scores(self.net.attribute, None, features, self._relevant, leaves)
            of_rows, of_labels, of_scores = (part.cpu().numpy() for part in found)
            owners.append(of_rows + first)
            labels.append(self._rows.label_of[of_labels])
            scores.append(of_scores)
        return np.concatenate(owners), np.concatenate(labels), np.concatenate(scores)

    def measure(self) -> Mapping[str, float]:
        """Micro F1 on valid at 0.5, the true category given."""
        targets = self.valid_split.targets
        owners, labels, scores = self.label_scores(self.valid_split)
        hits = positive_labels(owners, labels, targets, self._rows_labels)
        taken = scores >= 0.5
        total = int(taken.sum()) + len(targets.positives.values)
        f1 = 2 * int((taken & hits).sum()) / max(1, total)
        return {"attribute_f1": f1, "quality": f1}

    @property
    def _rows_labels(self) -> int:
        return self.train_split.targets.masks.num_labels
