"""dhpc-amazon as a system: a department classifier, leaf classifiers, strategies against noise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.calibration import UNCALIBRATED, calibrated
from models.cascade import CascadeOutputs
from models.dhpc import DhpcConfig, DhpcNet, department_rows, predictor_of
from models.encoders import (
    TextEncoder,
    every_other_layer,
    last_layers,
    load_pretrained,
)
from models.release_writing import write_release
from models.segments import SEGMENT_IDS, SegmentPreparer, SegmentTokenizer, grow_segments
from models.self_check import make_examples
from models.tokens import INPUT_IDS, TOKENIZER_FILE
from training.abstention import CALIBRATION_FILE, Promise, fit_abstention
from training.calibrate import fit_line
from training.dhpc_learner import DhpcLearner, accuracies
from training.encoding import encoder_place, split_features, training_dtype
from training.features import encoder_digest
from training.flagship_learner import Split
from training.prepared import SplitOnDisk
from training.recipe import DhpcSettings
from training.system import Job
from training.targets import label_spaces

__all__ = ["DhpcSystem", "fit_cascade_temperatures"]

# A logit beyond it is as sure as float32 can say.
_SURE = 30.0


class DhpcSystem:
    """See ``models.dhpc``."""

    def __init__(self, job: Job) -> None:
        settings = job.recipe.system
        if not isinstance(settings, DhpcSettings):
            raise TypeError(f"a dhpc is not made from {type(settings).__name__}")
        self._job = job
        self._settings = settings
        self.categories, self.labels = label_spaces(job.taxonomy)

        pretrained = load_pretrained(
            encoder_place(settings.encoder),
            layers=self._layers,
            pooling=settings.pooling,
            first_layers=settings.first_layers,
        )
        encoder: TextEncoder | None = None
        if settings.body == "encoder":
            encoder = self._ready(pretrained.encoder)
        self._encoder = encoder
        self._digest = "" if encoder is None else encoder_digest(encoder)
        tokenizer = SegmentTokenizer(
            pretrained.tokenizer, settings.max_tokens, letters=settings.letters
        )
        if encoder is not None:
            encoder.check_reads(tokenizer.vocabulary, settings.max_tokens)
        self.preparer = SegmentPreparer(tokenizer)
        self.preparer_key = json.dumps(
            [
                "dhpc",
                hashlib.sha256(pretrained.tokenizer).hexdigest(),
                settings.max_tokens,
                settings.letters,
            ]
        )
        self._config = DhpcConfig(
            encoder=None if encoder is None else encoder.config,
            vocabulary=tokenizer.vocabulary if encoder is None else 0,
            embedding=settings.embedding if encoder is None else 0,
            max_tokens=settings.max_tokens,
            letters=settings.letters,
            segments=settings.segments,
            bodies=settings.bodies,
            head_layers=settings.head_layers,
            head_width=settings.head_width,
            beam=settings.beam,
        )
        self._net = DhpcNet(
            self._config,
            department_rows(job.taxonomy, self.categories),
            encoder,
            settings.dropout,
        )

    def identity(self) -> Mapping[str, Any]:
        """The encoder's weights and configuration."""
        return {"encoder": self._digest}

    def learn(self, train: SplitOnDisk, valid: SplitOnDisk) -> DhpcLearner:
        """Cached features for a frozen encoder; the loop's learner."""
        job, settings = self._job, self._settings
        loop = job.recipe.train
        if settings.gear == "finetune" and loop.checkpoint_gradients:
            for body in self._net.bodies.values():
                if isinstance(body, TextEncoder):
                    body.checkpoint_gradients()
        self._examples = valid.examples
        self._learner = DhpcLearner(
            self._net,
            self._split("training", train),
            self._split("valid", valid),
            settings,
            job.device,
            dtype=training_dtype(loop.precision, job.device),
            seed=job.recipe.seed,
            # Sparse gradients are not averaged where a step leaves some of them out.
            sparse=job.processes.count == 1,
        )
        return self._learner

    def publish(self, out: Path, epochs: int) -> dict[str, float]:
        """Temperatures, calibration and thresholds from valid; the release."""
        recipe, net = self._job.recipe, self._net
        split = self._learner.valid_split
        true = split.targets.leaves
        outputs = self._learner.outputs(split)
        start = net.temperatures.cpu()
        fitted = fit_cascade_temperatures(outputs, start, true)
        net.temperatures.copy_(fitted)
        raw, best = outputs.scores(fitted).max(dim=1)
        line = fit_line(raw.numpy(), best.numpy() == true)
        net.calibration.copy_(torch.tensor(line or UNCALIBRATED))
        scores = calibrated(raw, net.calibration.cpu())
        departments = [self._job.taxonomy.department_of(leaf) for leaf in self.categories.ids]
        abstention = fit_abstention(
            scores.numpy(),
            best.numpy(),
            true,
            departments,
            split.targets.texts,
            Promise.of(self._settings),
        )
        thresholds = abstention.of_leaves(departments)
        assigned = scores.numpy() >= thresholds[best.numpy()]
        right = best.numpy() == true
        found = accuracies(outputs, fitted, true)
        found["category_accuracy"] = found.pop("quality")
        del found["accuracy"]
        bodies = list(net.bodies.values())
        metrics = {
            **found,
            "coverage": float(assigned.mean()),
            "assigned_accuracy": float(right[assigned].mean()) if assigned.any() else 0.0,
            "department_temperature": float(fitted[0]),
            "leaf_temperature": float(fitted[1]),
            "body_parameters": float(_parameters(bodies[0])),
            "parameters": float(_parameters(net)),
            "epochs": float(epochs),
            "products": float(len(split)),
        }
        weights = {
            key: tensor.detach().cpu().contiguous() for key, tensor in net.state_dict().items()
        }
        predictor = predictor_of(
            net, self.preparer, categories=self.categories, thresholds=thresholds
        )
        write_release(
            out,
            name=recipe.name,
            version=recipe.version,
            architecture="dhpc",
            config=self._config.to_json(),
            taxonomy=self._job.taxonomy,
            categories=self.categories,
            labels=None,
            category_thresholds=thresholds,
            label_thresholds=None,
            weights=weights,
            files={
                CALIBRATION_FILE: abstention.to_json(),
                TOKENIZER_FILE: self.preparer.tokenizer.serialised,
            },
            examples=make_examples(predictor, self._examples, self._job.taxonomy, self._job.device),
            metrics=metrics,
        )
        return metrics

    def _layers(self, num_layers: int) -> tuple[int, ...]:
        """Whose CLS states are pooled: PruneBERT's all, the knowledge skip's, or the last one's."""
        if self._settings.first_layers is not None:
            return tuple(range(1, num_layers + 1))
        return every_other_layer(num_layers) if self._settings.skip else last_layers(num_layers, 1)

    def _ready(self, encoder: TextEncoder) -> TextEncoder:
        encoder = encoder.to(self._job.device).eval()
        return grow_segments(encoder) if self._settings.segments else encoder

    @cached_property
    def _reader(self) -> TextEncoder:
        """A frozen encoder with all its layers: what it reads serves whatever pools its states."""
        whole = self._encoder
        if whole is None or self._settings.first_layers is not None:
            found = load_pretrained(encoder_place(self._settings.encoder), pooling="concat")
            whole = self._ready(found.encoder)
        return whole.all_states()

    @cached_property
    def _reader_digest(self) -> str:
        return encoder_digest(self._reader)

    def _split(self, name: str, split: SplitOnDisk) -> Split:
        if self._settings.gear == "finetune" or self._encoder is None:
            return Split(split.prepared, split.targets, None)
        features = split_features(
            name,
            self._reader,
            split.prepared.arrays[INPUT_IDS],
            self._job.recipe.cache,
            digest=self._reader_digest,
            progress=self._job.shows_progress,
            segments=split.prepared.arrays[SEGMENT_IDS] if self._settings.segments else None,
        )
        return Split(split.prepared, split.targets, features)


def fit_cascade_temperatures(
    outputs: CascadeOutputs, start: Tensor, leaves: NDArray[np.int64]
) -> Tensor:
    """Temperatures [2] under which the best leaf's score says most truly whether it is right.

    They minimise the binary cross-entropy of ``sigmoid(z / T_p) * sigmoid(u / T_c)`` at each
    product's best leaf. The best leaf of a beam of one stays the best under any temperatures.

    Args:
        start: [2], where the search begins. leaves: [N], true leaf rows.

    Returns:
        Each in [0.05, 20]; ``start`` for N = 0.
    """
    if len(leaves) == 0:
        return start.clone()
    best = outputs.scores(start).argmax(dim=1, keepdim=True)
    right = (best[:, 0] == torch.from_numpy(leaves)).double()
    department = outputs.department.gather(1, outputs.department_of[best]).double()[:, 0]
    leaf = outputs.leaf.gather(1, best).double()[:, 0]
    department, leaf = department.clamp(-_SURE, _SURE), leaf.clamp(-_SURE, _SURE)
    logs = start.double().log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        temperatures = logs.clamp(np.log(0.05), np.log(20.0)).exp()
        log_score = functional.logsigmoid(department / temperatures[0]) + functional.logsigmoid(
            leaf / temperatures[1]
        )
        rest = torch.log(-torch.expm1(log_score.clamp(max=-1e-9)))
        loss = -(right * log_score + (1 - right) * rest).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return logs.detach().exp().clamp(0.05, 20.0).float()


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
