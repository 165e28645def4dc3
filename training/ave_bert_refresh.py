"""ave-label-masking as a system that starts from a release, under the same or another taxonomy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.ave_bert import AveBertConfig, AveBertNet, AveBertPreparer, ClassifierRows
from models.errors import ModelError
from models.labels import LabelSpace
from models.loading import load_predictor
from models.product import Product
from models.release import Release
from training.ave_bert import AveBertSystem, attribute_spaces
from training.carry_over import RowChange, carry_over, in_batches, label_names
from training.features import encoder_digest
from training.recipe import AveBertSettings
from training.system import Job

__all__ = ["RefreshedAveBert"]

# The category that a classifier is for (none where there is one alone), and the label.
_RowId = tuple[str, str]


class RefreshedAveBert(AveBertSystem):
    """An ave_bert with a release's encoder, tokens and weights; the recipe says how it learns.

    How many classifiers there are is the release's, whatever the recipe says.
    """

    def __init__(self, job: Job, release: Release) -> None:
        settings = job.recipe.system
        if not isinstance(settings, AveBertSettings):
            raise TypeError(f"an ave_bert is not made from {type(settings).__name__}")
        predictor = load_predictor(release, torch.device("cpu"), "float32")
        reading, labels = predictor.attribute, release.labels
        if not isinstance(predictor.preparer, AveBertPreparer) or reading is None or labels is None:
            raise ModelError(f"release {release.id} is no ave_bert")
        config = AveBertConfig.from_json(release.config)
        if config.classifiers != "one" and settings.weight_decay:
            raise ModelError(
                f"release {release.id} has a classifier for each category, and a batch would decay "
                "those that it is not of: set system.weight_decay=0"
            )
        self._job = job
        self._settings = replace(settings, classifiers=config.classifiers)
        self._release = release
        self.preparer = predictor.preparer
        self.preparer_key = json.dumps(["ave_bert", release.manifest_sha256])
        self.categories, self.labels = attribute_spaces(job)
        self._config = config
        self._rows = ClassifierRows(
            job.taxonomy, self.labels, config.classifiers, self.categories.ids
        )

        def encode(products: Sequence[Product]) -> Tensor:
            # One label has a row in many classifiers.
            texts = [(product.title, product.description) for product in products]
            once = dict(zip(texts, products, strict=True))
            prepared = self.preparer.prepare(list(once.values()))
            features = in_batches(prepared, net.encoder.num_features, reading.encoder.encode)
            row_of = {text: row for row, text in enumerate(once)}
            return features[[row_of[text] for text in texts]]

        named = label_names(release.taxonomy, job.taxonomy)
        before = ClassifierRows(release.taxonomy, labels, config.classifiers, ())
        change = RowChange(
            _row_ids(before, labels),
            _row_ids(self._rows, self.labels),
            lambda row: named(row[1]),
            encode,
        )
        net = AveBertNet(config, len(self._rows), dropout=settings.dropout)
        weights = carry_over(release.weights(), net.state_dict(), {"attribute.": change})
        net.load_state_dict(weights)
        self._net = net.to(job.device)
        self._digest = encoder_digest(net.encoder.eval())

    def identity(self) -> Mapping[str, Any]:
        """The release that it starts from."""
        return {"release": self._release.manifest_sha256}


def _row_ids(rows: ClassifierRows, labels: LabelSpace) -> list[_RowId]:
    pairs = zip(rows.classifier_of.tolist(), rows.label_of.tolist(), strict=True)
    return [(rows.names[classifier], labels.ids[label]) for classifier, label in pairs]
