"""What the loop trains of a cascade: every classifier on batches of its own.

A row of training is a product for one classifier, and a batch holds rows of one classifier
alone, so classifiers with bodies of their own are trained independently, as in dhpc-amazon, in
one run: a step changes (and the optimiser remembers) nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cascade import CascadeOutputs, cascade_outputs
from models.dhpc import DhpcNet, body_features
from models.encoders import pooled_states
from models.pooled_views import PooledViews
from models.prepare import Prepared
from models.segments import SEGMENT_IDS
from models.tokens import INPUT_IDS
from training.encoding import encode_batch
from training.flagship_learner import Split
from training.noise_losses import classifier_loss
from training.recipe import DhpcSettings
from training.row_adam import RowAdam
from training.tasks import Tasks, make_tasks

__all__ = ["DhpcLearner"]

# Products scored at once on valid; more where no encoder reads them and small heads remain.
_VALID_BATCH = {"read": 256, "known": 2_048}


class _Steps(nn.Module):
    """Steps of each classifier so far; a part of the model so that a checkpoint holds them."""

    counts: Tensor

    def __init__(self, num_classifiers: int) -> None:
        super().__init__()
        # Averages of weights average buffers too, which whole numbers cannot be.
        self.register_buffer("counts", torch.zeros(num_classifiers, dtype=torch.float64))


class DhpcLearner:
    """The network with its splits; a frozen encoder's hold the CLS states of all its layers.

    Args:
        seed: of what balanced resampling draws.
        sparse: give the DNN's embeddings gradients of touched rows only: for one process.
    """

    def __init__(
        self,
        net: DhpcNet,
        train: Split,
        valid: Split,
        settings: DhpcSettings,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        sparse: bool = True,
    ) -> None:
        self.net = net.to(device)
        self.train_split = train
        self.valid_split = valid
        self._settings = settings
        self._device = device
        self._dtype = dtype
        self._counted: NDArray[np.int64] | None = None
        self._department_of: NDArray[np.int64] = net.department_of.cpu().numpy()
        self.tasks: Tasks = make_tasks(
            train.targets.leaves,
            self._department_of,
            net.leaf_names,
            settings.department,
            settings.leaf,
            seed,
        )
        self.num_rows = len(self.tasks.products)
        self.groups: NDArray[np.int64] | None = self.tasks.of
        self.frozen = train.encoded is not None
        self.lengths: NDArray[np.int64] | None = None
        if not self.frozen and net.config.encoder is not None:
            self.lengths = train.prepared.arrays[INPUT_IDS].lengths[self.tasks.products]
        with torch.no_grad():
            net.temperatures[0] = settings.department.temperature
            net.temperatures[1] = settings.leaf.temperature
        for body in net.bodies.values():
            if isinstance(body, PooledViews):
                body.bag.sparse = sparse
        self._steps = _Steps(1 + len(net.leaves_of)).to(device)
        parts: dict[str, nn.Module] = {"heads": net.heads, "steps": self._steps}
        if not self.frozen:
            parts["bodies"] = net.bodies
        self.model: nn.Module = nn.ModuleDict(parts)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW for encoders and heads, Adam by rows for the DNN's embeddings."""
        settings = self._settings
        bags = [
            body.bag.weight for body in self.net.bodies.values() if isinstance(body, PooledViews)
        ]
        of_bags = {id(bag) for bag in bags}
        by_kind: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if id(parameter) in of_bags:
                continue
            rate = settings.learning_rate if name.startswith("bodies.") else settings.head_rate
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            by_kind.setdefault((rate, decay), []).append(parameter)
        # Few groups: each costs a step as much as the parameters of a small head.
        groups: list[dict[str, Any]] = [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in by_kind.items()
        ]
        found: list[torch.optim.Optimizer] = [
            # One pass over weights and moments instead of ten.
            torch.optim.AdamW(groups, fused=self._device.type in ("cpu", "cuda") or None)
        ]
        if bags:
            found.append(RowAdam(bags, lr=settings.embedding_rate))
        return found

    def features(self, split: Split, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Features [B, E] of a classifier's body for rows of a split."""
        if split.encoded is not None and self.net.config.encoder is not None:
            states = torch.from_numpy(split.encoded[rows]).to(self._device).float()
            return pooled_states(states, self.net.config.encoder)
        body = self.net.body(name)
        tokens = split.prepared.arrays[INPUT_IDS].take(rows)
        segments = split.prepared.arrays[SEGMENT_IDS].take(rows)
        if isinstance(body, PooledViews):
            arrays = {INPUT_IDS: tokens, SEGMENT_IDS: segments}
            costs = split.prepared.costs[rows]
            return body_features(body, Prepared(arrays, costs), self._device)
        used = segments if self.net.config.segments else None
        return encode_batch(body, tokens, self._device, self._dtype, used)  # type: ignore[arg-type]

    def loss_of(self, rows: NDArray[np.int64], step: NDArray[np.int64] | None = None) -> Tensor:
        """Loss of training rows [B] of one classifier, a part of a step's mean."""
        task = int(self.tasks.of[rows[0]])
        name = self.net.names[0] if task == 0 else self.net.leaf_names[task - 1]
        strategy = self._settings.department if task == 0 else self._settings.leaf
        head = self.net.head(name)
        if self.model.training and (step is None or step is not self._counted):
            # All pieces of a step have the same rows of it.
            self._counted = step
            self._steps.counts[task] += 1
        # Those before this one.
        steps = max(0, int(self._steps.counts[task]) - 1)
        hidden = head.hidden(self.features(self.train_split, name, self.tasks.products[rows]))
        classes = torch.from_numpy(self.tasks.classes[rows]).to(self._device)
        share = 1.0 if step is None else len(rows) / len(step)
        return share * classifier_loss(head.last, hidden, classes, strategy, steps)

    @torch.no_grad()
    def outputs(self, split: Split) -> CascadeOutputs:
        """Logits of a whole split, on the CPU, the true department's leaves among them."""
        true = self._department_of[split.targets.leaves]
        found: list[CascadeOutputs] = []
        size = _VALID_BATCH["known" if self.frozen else "read"]
        for first in range(0, len(split), size):
            rows = np.arange(first, min(first + size, len(split)))
            once: dict[str, Tensor] = {}

            def features(
                name: str,
                places: NDArray[np.int64],
                rows: NDArray[np.int64] = rows,
                once: dict[str, Tensor] = once,
            ) -> Tensor:
                if self.net.config.bodies == "separate":
                    return self.features(split, name, rows[places])
                if not once:
                    once[name] = self.features(split, name, rows)
                return next(iter(once.values()))[torch.from_numpy(places).to(self._device)]

            found.append(cascade_outputs(self.net, features, len(rows), true[rows]))
        return CascadeOutputs(
            torch.cat([each.department.cpu() for each in found]),
            torch.cat([each.leaf.cpu() for each in found]),
            torch.cat([each.in_beam.cpu() for each in found]),
            self.net.department_of.cpu(),
        )

    def measure(self) -> Mapping[str, float]:
        """Accuracies on valid: of departments, of leaves given theirs, and of the cascade."""
        outputs = self.outputs(self.valid_split)
        return accuracies(outputs, self.net.temperatures.cpu(), self.valid_split.targets.leaves)


def accuracies(
    outputs: CascadeOutputs, temperatures: Tensor, leaves: NDArray[np.int64]
) -> dict[str, float]:
    """Shares of products that each stage, and the cascade, puts right.

    Args:
        leaves: [N], true leaf rows. outputs: with the true department asked for each product.
    """
    true = torch.from_numpy(leaves)
    departments = outputs.department_of[true]
    best = outputs.scores(temperatures).argmax(dim=1)
    accuracy = float((best == true).double().mean())
    return {
        "department_accuracy": float((outputs.best_departments() == departments).double().mean()),
        "leaf_accuracy_true_department": float(
            (outputs.best_leaves(departments) == true).double().mean()
        ),
        "accuracy": accuracy,
        "quality": accuracy,
    }
