"""What the loop trains of a flagship, over prepared products, in either gear.

The frozen gear reads an encoder's features from disk and trains mixer and heads; the fine-tuning
gear runs the encoder and trains all of it. Losses, measures and optimisers are the same otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bags import BagInput, of_members, without_some
from models.device_masks import DeviceMasks
from models.flagship import FlagshipNet
from models.labels import Masks
from models.masked_attributes import relevant_scores
from models.members import joined
from models.prepare import Prepared, Ragged
from models.tokens import INPUT_IDS
from training.encoding import encode_batch, layers_above
from training.losses import attribute_loss, cascade_loss
from training.recipe import Rates
from training.row_adagrad import RowAdagrad
from training.row_adam import RowAdam
from training.same_texts import first_of_each
from training.targets import Targets

__all__ = ["FlagshipLearner", "Scored", "Split", "positive_labels"]

# Products scored at once on valid: bounds [B, leaves] at some tens of MB.
_VALID_BATCH = 256


@dataclass(frozen=True, slots=True)
class Split:
    """Prepared products with their targets; ``encoded`` [N, E] where the encoder is frozen."""

    prepared: Prepared
    targets: Targets
    encoded: NDArray[np.float16] | None

    def __len__(self) -> int:
        return len(self.prepared)


@dataclass(frozen=True, slots=True)
class Scored:
    """A split's outputs before any threshold, on the CPU.

    Args:
        department_logits: [N, P]; leaf_logits: [N, C]; both None without a category head.
        features: [N, M, D], float32.
    """

    department_logits: Tensor | None
    leaf_logits: Tensor | None
    features: Tensor


class FlagshipLearner:
    """A network, its training and valid splits, and where it runs.

    Args:
        dtype: of the encoder's arithmetic, where it is trained.
        sparse: give the bags gradients of touched rows only: not where NCCL averages them.
        ngram_dropout, leaf_prior, masking: as ``recipe.FlagshipSettings``.
        texts: product rows by text, where training reads each text once; None: each product.
    """

    groups: NDArray[np.int64] | None = None

    def __init__(
        self,
        net: FlagshipNet,
        train: Split,
        valid: Split,
        rates: Rates,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        sparse: bool = True,
        ngram_dropout: float = 0.0,
        leaf_prior: float = 0.0,
        masking: bool = True,
        texts: Ragged | None = None,
    ) -> None:
        self.device = device
        self._dtype = dtype
        self.net = net.to(device)
        self.train_split = train
        self.valid_split = valid
        self._rates = rates
        self._masks = DeviceMasks.from_masks(train.targets.masks, device)
        self._loss_masks = self._masks
        if not masking:
            self._loss_masks = DeviceMasks.from_masks(_everything(train.targets.masks), device)
        self._ngram_dropout = ngram_dropout
        self._leaf_offsets = None
        if leaf_prior and net.category is not None:
            self._leaf_offsets = leaf_prior * _log_shares(
                train.targets.leaves, len(net.category.leaf.bias)
            ).to(device)
        self.frozen = net.encoder is None or train.encoded is not None
        self._texts = texts
        self.num_rows = len(train) if texts is None else len(texts)
        self.lengths = None
        if not self.frozen:
            lengths = train.prepared.arrays[INPUT_IDS].lengths
            self.lengths = lengths if texts is None else lengths[first_of_each(texts)]
        for bag in net.mixer.bags:
            bag.sparse = sparse
        parts: dict[str, nn.Module | None] = {
            "mixer": net.mixer,
            "category": net.category,
            "told": net.told,
            "attribute": net.attribute,
        }
        if not self.frozen:
            parts["encoder"] = net.encoder
        self.model: nn.Module = nn.ModuleDict(
            {name: part for name, part in parts.items() if part is not None}
        )

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW for all dense parameters, another for the bags: few of their rows meet a batch."""
        rates = self._rates
        tables = [bag.weight for bag in self.net.mixer.bags]
        groups: list[dict[str, Any]] = []
        for name, parameter in self.model.named_parameters():
            if any(parameter is table for table in tables):
                continue
            rate = rates.heads
            if self.net.encoder is not None and name.startswith("encoder."):
                rate = rates.encoder * rates.layer_decay ** layers_above(self.net.encoder, name)
            decay = rates.weight_decay if parameter.dim() > 1 else 0.0
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        of_bags: torch.optim.Optimizer
        if rates.bag_optimizer == "adagrad":
            of_bags = RowAdagrad(tables, lr=rates.bag)
        else:
            of_bags = RowAdam(tables, lr=rates.bag)
        # One pass over weights and moments instead of ten.
        fused = self.device.type in ("cpu", "cuda") or None
        return [torch.optim.AdamW(groups, fused=fused), of_bags]

    def features(self, split: Split, rows: NDArray[np.int64]) -> Tensor:
        """Features [B, M, D] of rows of a split; in training some n-grams are left out."""
        arrays = {
            name: ragged.take(rows)
            for name, ragged in split.prepared.arrays.items()
            if name != INPUT_IDS
        }
        encoded = None
        if split.encoded is not None:
            encoded = torch.from_numpy(split.encoded[rows]).to(self.device).float()
        elif self.net.encoder is not None:
            tokens = split.prepared.arrays[INPUT_IDS].take(rows)
            encoded = encode_batch(self.net.encoder, tokens, self.device, self._dtype)
        features: Tensor = self.net.mixer(encoded, *self._bag_inputs(arrays))
        return features

    def _bag_inputs(self, arrays: Mapping[str, Ragged]) -> list[BagInput]:
        mixer, share = self.net.mixer, self._ngram_dropout
        if not (mixer.training and share):
            return self.net.bag_inputs(arrays, self.device)
        # Each member leaves out others: they are to err apart.
        of_each = [
            self.net.bag_inputs(
                {name: without_some(hashed, share) for name, hashed in arrays.items()}, self.device
            )
            for _ in range(mixer.members)
        ]
        return [
            of_members(of_bag[: bag.members])
            for bag, of_bag in zip(mixer.bags, zip(*of_each, strict=True), strict=True)
        ]

    def loss_of(self, rows: NDArray[np.int64], step: NDArray[np.int64] | None = None) -> Tensor:
        """Category loss plus weighted attribute loss of training rows [B], products or texts."""
        targets = self.train_split.targets
        products = rows if step is None else step
        if self._texts is not None:
            products = self._texts.take(products).values.astype(np.int64, copy=False)
        if self._texts is None:
            features = self.features(self.train_split, rows)
        else:
            texts = self._texts.take(rows)
            features = self.features(self.train_split, first_of_each(texts))
            owners = np.repeat(np.arange(len(texts)), texts.lengths)
            features = features[torch.from_numpy(owners).to(self.device)]
            rows = texts.values.astype(np.int64, copy=False)
        loss = features.new_zeros(())
        if self.net.category is not None:
            leaves = torch.from_numpy(targets.leaves[rows]).to(self.device)
            labelled = int((targets.leaves[products] >= 0).sum())
            loss = loss + cascade_loss(
                self.net.category, features, leaves, self._leaf_offsets, labelled=labelled
            )
        if self.net.attribute is not None:
            positives = targets.positives.take(rows)
            loss = loss + self._rates.attribute_weight * attribute_loss(
                self.net.attribute,
                self._told(features, targets.leaves[rows]),
                self._loss_masks,
                torch.from_numpy(targets.mask_rows[rows]).to(self.device),
                torch.from_numpy(positives.indptr).to(self.device),
                torch.from_numpy(np.asarray(positives.values, dtype=np.int64)).to(self.device),
                labelled=int((targets.mask_rows[products] >= 0).sum()),
            )
        return loss

    @torch.no_grad()
    def score(self, split: Split) -> Scored:
        """Outputs of a whole split, on the CPU, in its order; temperatures are fitted on them."""
        department, leaf, features = [], [], []
        for first in range(0, len(split), _VALID_BATCH):
            rows = np.arange(first, min(first + _VALID_BATCH, len(split)))
            of_rows = self.features(split, rows)
            features.append(of_rows.cpu())
            if self.net.category is not None:
                of_departments, of_leaves = self.net.category.logits(joined(of_rows))
                department.append(of_departments.cpu())
                leaf.append(of_leaves.cpu())
        return Scored(
            torch.cat(department) if department else None,
            torch.cat(leaf) if leaf else None,
            torch.cat(features)
            if features
            else self.features(split, np.empty(0, dtype=np.int64)).cpu(),
        )

    @torch.inference_mode()
    def label_scores(
        self, features: Tensor, mask_rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Every relevant label's score, as served: product rows, label rows and scores, [M] each.

        Args:
            features: [N, M, D], from ``score``. mask_rows: [N], of the categories that are told.
        """
        head = self.net.attribute
        if head is None:
            raise ValueError("there is no attribute head to score labels with")
        parts = []
        for first in range(0, len(features), _VALID_BATCH):
            rows = mask_rows[first : first + _VALID_BATCH]
            told = self._told(features[first : first + _VALID_BATCH].to(self.device), rows)
            found = relevant_scores(head, self.net.rivals, joined(told), self._masks, rows)
            owners, labels, scores = (part.cpu().numpy() for part in found)
            parts.append((owners + first, labels, scores))
        if not parts:
            none = np.empty(0, dtype=np.int64)
            return none, none, np.empty(0, dtype=np.float32)
        owners, labels, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        return owners, labels, scores

    def _told(self, features: Tensor, category_rows: NDArray[np.int64]) -> Tensor:
        """Features as the attribute head reads them."""
        if self.net.told is None:
            return features
        told: Tensor = self.net.told(features, torch.from_numpy(category_rows).to(self.device))
        return told

    def measure(self) -> Mapping[str, float]:
        """Measures on valid: accuracy, micro F1 at 0.5 given the true category, and their mean."""
        scored = self.score(self.valid_split)
        targets = self.valid_split.targets
        found: dict[str, float] = {}
        if self.net.category is not None:
            found["accuracy"] = float((self.best_leaves(scored) == targets.leaves).mean())
        if self.net.attribute is not None:
            owners, label_rows, scores = self.label_scores(scored.features, targets.mask_rows)
            hits = positive_labels(owners, label_rows, targets, len(self.net.attribute.bias))
            taken = scores >= 0.5
            total = int(taken.sum()) + len(targets.positives.values)
            found["attribute_f1"] = 2 * int((taken & hits).sum()) / max(1, total)
        return {**found, "quality": sum(found.values()) / max(1, len(found))}

    @torch.inference_mode()
    def best_leaves(self, scored: Scored) -> NDArray[np.int64]:
        """The best leaf row of each product at the head's temperatures, [N], int64."""
        head = self.net.category
        if head is None or scored.department_logits is None or scored.leaf_logits is None:
            raise ValueError("there is no category head to score leaves with")
        best = [
            head.log_scores_from(
                department.to(self.device), leaf.to(self.device), head.temperatures
            )
            .argmax(dim=1)
            .cpu()
            .numpy()
            for department, leaf in zip(
                torch.split(scored.department_logits, _VALID_BATCH),
                torch.split(scored.leaf_logits, _VALID_BATCH),
                strict=True,
            )
        ]
        return np.concatenate(best)


def _everything(masks: Masks) -> Masks:
    """All labels for every category."""
    all_labels = np.arange(masks.num_labels, dtype=np.uint32)
    return Masks.from_rows([all_labels] * len(masks), masks.num_labels)


def _log_shares(leaves: NDArray[np.int64], num_leaves: int) -> Tensor:
    """Logarithm of each leaf's share of the products, one product more to each: none is 0."""
    counts = np.bincount(leaves, minlength=num_leaves) + 1
    return torch.from_numpy(np.log(counts / counts.sum())).float()


def positive_labels(
    owners: NDArray[np.int64], label_rows: NDArray[np.int64], targets: Targets, num_labels: int
) -> NDArray[np.bool_]:
    """Which scored (product, label) pairs are true, [M]."""
    positives = targets.positives
    true_owners = np.repeat(np.arange(len(positives)), positives.lengths)
    true = true_owners * num_labels + np.asarray(positives.values, dtype=np.int64)
    return np.isin(owners * num_labels + label_rows, true)
