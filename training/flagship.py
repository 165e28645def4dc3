"""The flagship as a system: encoder, hashed bag and heads, for the loop and for a release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.encoders import load_pretrained
from models.flagship import INPUT_IDS, FlagshipConfig, FlagshipNet, FlagshipPreparer
from models.hashing import HashingConfig
from models.tokens import TextTokenizer
from training.encoding import encoder_place, split_features, training_dtype
from training.features import encoder_digest
from training.flagship_learner import FlagshipLearner, Split
from training.flagship_release import Fitted, publish
from training.prepared import SplitOnDisk
from training.recipe import FlagshipSettings
from training.system import Job
from training.targets import label_spaces

__all__ = ["FlagshipSystem"]


class FlagshipSystem:
    """One encoder pass for department, leaf and attributes: see ``models.flagship``."""

    def __init__(self, job: Job) -> None:
        settings = job.recipe.system
        if not isinstance(settings, FlagshipSettings):
            raise TypeError(f"a flagship is not made from {type(settings).__name__}")
        self._job = job
        self._settings = settings
        pretrained = load_pretrained(
            encoder_place(settings.encoder), pooling=settings.layer_pooling
        )
        encoder = pretrained.encoder.to(job.device).eval()
        self._digest = encoder_digest(encoder)
        hashing = HashingConfig(buckets=settings.hash_buckets)
        self._config = FlagshipConfig(
            encoder=encoder.config,
            hashing=hashing,
            max_tokens=settings.max_tokens,
            bag_dim=settings.bag_dim,
        )
        self.preparer = FlagshipPreparer(
            TextTokenizer(pretrained.tokenizer, settings.max_tokens), hashing
        )
        self.preparer_key = json.dumps(
            [
                "flagship",
                hashlib.sha256(pretrained.tokenizer).hexdigest(),
                settings.max_tokens,
                hashing.to_json(),
            ]
        )
        taxonomy = job.taxonomy
        self.categories, self.labels = label_spaces(taxonomy)
        row_of = {name: row for row, name in enumerate(taxonomy.departments)}
        self._net = FlagshipNet(
            self._config,
            departments=[row_of[taxonomy.department_of(leaf)] for leaf in self.categories.ids],
            num_labels=len(self.labels),
            encoder=encoder,
            dropout=settings.dropout,
        )

    def identity(self) -> Mapping[str, Any]:
        """The encoder's weights and configuration."""
        return {"encoder": self._digest}

    def learn(self, train: SplitOnDisk, valid: SplitOnDisk) -> FlagshipLearner:
        """Cached features for a frozen encoder; the loop's learner."""
        settings, job = self._settings, self._job
        loop = job.recipe.train
        if settings.gear == "finetune" and loop.checkpoint_gradients:
            self._net.encoder.checkpoint_gradients()
        self._examples = valid.examples
        self._learner = FlagshipLearner(
            self._net,
            self._split("training", train),
            self._split("valid", valid),
            settings.rates,
            job.device,
            dtype=training_dtype(loop.precision, job.device),
            # NCCL cannot average sparse gradients.
            sparse=job.processes.count == 1 or job.device.type == "cpu",
        )
        return self._learner

    def publish(self, out: Path, epochs: int) -> dict[str, float]:
        """Temperatures and thresholds from valid; the release."""
        recipe = self._job.recipe
        return publish(
            Fitted(
                self._config,
                self.preparer,
                self._learner,
                self._job.taxonomy,
                self.categories,
                self.labels,
            ),
            out,
            name=recipe.name,
            version=recipe.version,
            target_accuracy=self._settings.target_accuracy,
            examples=self._examples,
            epochs=epochs,
        )

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
