"""The flagship as a system: encoder, hashed bag and heads, for the loop and for a release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.bags import Vocabulary
from models.encoders import Pretrained, load_pretrained
from models.flagship import FlagshipConfig, FlagshipNet
from models.flagship_preparer import (
    BULLETS_IDS,
    HASHED_IDS,
    REST_IDS,
    WHOLE_IDS,
    FlagshipPreparer,
)
from models.hashing import HashingConfig
from models.tokens import INPUT_IDS, TextTokenizer
from training.abstention import Promise
from training.encoding import encoder_place, split_features, training_dtype
from training.features import encoder_digest
from training.flagship_learner import FlagshipLearner, Split
from training.flagship_release import Fitted, publish
from training.prepared import SplitOnDisk
from training.recipe import FlagshipSettings
from training.same_texts import first_of_each, same_texts
from training.system import Job
from training.targets import label_spaces, most_values

__all__ = ["FlagshipSystem"]


class FlagshipSystem:
    """One encoder pass for department, leaf and attributes: see ``models.flagship``."""

    def __init__(self, job: Job) -> None:
        settings = job.recipe.system
        if not isinstance(settings, FlagshipSettings):
            raise TypeError(f"a flagship is not made from {type(settings).__name__}")
        self._job = job
        self._settings = settings
        self._served_tables: torch.dtype = getattr(torch, settings.served_tables)
        self._pretrained = _pretrained(settings)
        self._digest = ""
        tokenizer = None
        if self._pretrained is not None:
            self._pretrained.encoder.to(job.device).eval()
            self._digest = encoder_digest(self._pretrained.encoder)
            tokenizer = TextTokenizer(self._pretrained.tokenizer, settings.max_tokens)
            self._pretrained.encoder.check_reads(tokenizer.vocabulary, settings.max_tokens)
        self.preparer = FlagshipPreparer(tokenizer, _hashings(settings))
        self.preparer_key = json.dumps(
            [
                "flagship",
                None if tokenizer is None else hashlib.sha256(tokenizer.serialised).hexdigest(),
                settings.max_tokens,
                {name: each.to_json() for name, each in _hashings(settings).items()},
            ]
        )
        taxonomy = job.taxonomy
        self.categories, self.labels = label_spaces(taxonomy)

    def identity(self) -> Mapping[str, Any]:
        """The encoder's weights and configuration."""
        return {"encoder": self._digest}

    def learn(self, train: SplitOnDisk, valid: SplitOnDisk) -> FlagshipLearner:
        """Cached features for a frozen encoder; the loop's learner."""
        settings, job = self._settings, self._job
        loop = job.recipe.train
        self._texts = same_texts(train.prepared.arrays) if settings.texts_once else None
        self._config, self._net = self._network(train)
        encoder = self._net.encoder
        if settings.gear == "finetune" and loop.checkpoint_gradients and encoder is not None:
            encoder.checkpoint_gradients()
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
            ngram_dropout=settings.ngram_dropout,
            leaf_prior=settings.leaf_prior,
            masking=settings.masking,
            texts=self._texts,
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
            promise=Promise.of(self._settings),
            examples=self._examples,
            epochs=epochs,
            bands=self._settings.label_thresholds == "bands",
            tables=self._served_tables,
        )

    def _network(self, train: SplitOnDisk) -> tuple[FlagshipConfig, FlagshipNet]:
        """The network to train, and what shapes it."""
        settings, job = self._settings, self._job
        vocabularies = self._vocabularies(train)
        hashings = _hashings(settings)
        rows = {name: len(each.buckets) for name, each in zip(hashings, vocabularies, strict=False)}
        encoder = None if self._pretrained is None else self._pretrained.encoder
        config = FlagshipConfig(
            encoder=None if encoder is None else encoder.config,
            hashing=hashings[HASHED_IDS],
            max_tokens=settings.max_tokens,
            bag_dim=settings.bag_dim,
            members=settings.members,
            whole_members=settings.whole_members,
            rest_hashing=hashings.get(REST_IDS),
            bullets_hashing=hashings.get(BULLETS_IDS),
            whole_hashing=hashings.get(WHOLE_IDS),
            bag_rows=rows.get(HASHED_IDS),
            rest_rows=rows.get(REST_IDS),
            bullets_rows=rows.get(BULLETS_IDS),
            whole_rows=rows.get(WHOLE_IDS),
            hidden=settings.hidden,
            category_dim=settings.category_dim if len(self.labels) else 0,
            exclusive=self._exclusive(train) if settings.rivals else None,
        )
        department_of = {name: row for row, name in enumerate(job.taxonomy.departments)}
        net = FlagshipNet(
            config,
            departments=[
                department_of[job.taxonomy.department_of(leaf)] for leaf in self.categories.ids
            ],
            num_labels=len(self.labels),
            encoder=encoder,
            vocabularies=vocabularies,
            attribute_of=config.attribute_of(job.taxonomy, self.labels),
            dropout=settings.dropout,
        )
        return config, net

    def _exclusive(self, train: SplitOnDisk) -> tuple[str, ...]:
        """Attributes that training has, and no training product two values of."""
        most = most_values(train.targets.positives, self._job.taxonomy, self.labels)
        return tuple(each for each, values in most.items() if values == 1)

    def _vocabularies(self, train: SplitOnDisk) -> list[Vocabulary]:
        """One a bag, of the training products (or texts); none where every bucket has a row."""
        settings = self._settings
        if not settings.min_count:
            return []
        rows = None if self._texts is None else first_of_each(self._texts)
        return [
            Vocabulary.of(train.prepared.arrays[name], hashing.buckets, settings.min_count, rows)
            for name, hashing in _hashings(settings).items()
        ]

    def _split(self, name: str, split: SplitOnDisk) -> Split:
        encoder = self._net.encoder
        if encoder is None or self._settings.gear == "finetune":
            return Split(split.prepared, split.targets, None)
        features = split_features(
            name,
            encoder,
            split.prepared.arrays[INPUT_IDS],
            self._job.recipe.cache,
            digest=self._digest,
            progress=self._job.shows_progress,
        )
        return Split(split.prepared, split.targets, features)


def _pretrained(settings: FlagshipSettings) -> Pretrained | None:
    if settings.encoder == "none":
        return None
    return load_pretrained(encoder_place(settings.encoder), pooling=settings.layer_pooling)


def _hashings(settings: FlagshipSettings) -> dict[str, HashingConfig]:
    """Of each bag that the settings ask for, by the name of its array, in the bags' order."""
    whole = HashingConfig(
        buckets=settings.hash_buckets,
        ngrams=settings.title_ngrams,
        word_pairs=settings.word_pairs,
    )
    if settings.views == "one":
        return {HASHED_IDS: whole}
    title = replace(whole, mark_title=False)
    rest = replace(title, ngrams=settings.rest_ngrams)
    hashings = {HASHED_IDS: title, REST_IDS: rest}
    if settings.views == "three":
        hashings[BULLETS_IDS] = rest
    if settings.whole_bag:
        hashings[WHOLE_IDS] = whole
    return hashings
