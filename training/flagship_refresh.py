"""The flagship as a system that starts from a release, under the same or a changed taxonomy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.errors import ModelError
from models.flagship import FlagshipConfig, FlagshipNet
from models.flagship_preparer import FlagshipPreparer
from models.loading import load_predictor
from models.product import Product
from models.release import Release
from models.rivals import Rivals
from models.taxonomy import Taxonomy
from training.carry_over import RowChange, carry_over, category_names, in_batches, label_names
from training.features import encoder_digest
from training.flagship import FlagshipSystem
from training.prepared import SplitOnDisk
from training.recipe import FlagshipSettings
from training.system import Job
from training.targets import label_spaces, most_values

__all__ = ["RefreshedFlagship"]


class RefreshedFlagship(FlagshipSystem):
    """A flagship with a release's encoder, preparer and weights; the recipe says how it learns.

    What shapes the network (encoder, bags, lengths, what tables are served in) is the release's,
    whatever the recipe says.
    """

    def __init__(self, job: Job, release: Release) -> None:
        settings = job.recipe.system
        if not isinstance(settings, FlagshipSettings):
            raise TypeError(f"a flagship is not made from {type(settings).__name__}")
        self._job = job
        self._settings = settings
        self._release = release
        predictor = load_predictor(release, torch.device("cpu"), "float32")
        if (
            not isinstance(predictor.preparer, FlagshipPreparer)
            or predictor.category is None
            or release.categories is None
        ):
            raise ModelError(f"release {release.id} is no flagship with a category model")
        self.preparer = predictor.preparer
        self.preparer_key = json.dumps(["flagship", release.manifest_sha256])
        self.categories, self.labels = label_spaces(job.taxonomy)
        if (release.labels is None) != (len(self.labels) == 0):
            raise ModelError(
                f"release {release.id} has {'no' if release.labels is None else 'an'} attribute "
                f"model, the taxonomy has {len(self.labels)} labels: train it anew with run"
            )
        reading = predictor.category.encoder
        taxonomy = job.taxonomy
        config = FlagshipConfig.from_json(release.config)
        row_of = {name: row for row, name in enumerate(taxonomy.departments)}
        net = FlagshipNet(
            config,
            departments=[row_of[taxonomy.department_of(leaf)] for leaf in self.categories.ids],
            num_labels=len(self.labels),
            attribute_of=config.attribute_of(taxonomy, self.labels),
            dropout=settings.dropout,
        )

        def encode(products: Sequence[Product]) -> Tensor:
            width = config.members * net.mixer.num_features
            return in_batches(self.preparer.prepare(products), width, reading.encode)

        changes = _changes(release, taxonomy, self.categories.ids, self.labels.ids, encode)
        weights = carry_over(release.weights(), net.state_dict(), changes)
        self._served_tables = weights["mixer.bag.weight"].dtype
        net.load_state_dict(weights)
        net.to(job.device)
        if net.encoder is not None:
            self._digest = encoder_digest(net.encoder.eval())
        self._config, self._net = config, net

    def identity(self) -> Mapping[str, Any]:
        """The release that it starts from."""
        return {"release": self._release.manifest_sha256}

    def _network(self, train: SplitOnDisk) -> tuple[FlagshipConfig, FlagshipNet]:
        config = self._config
        if self._net.rivals is None or config.exclusive is None:
            return config, self._net
        # An attribute of which a new product has two values is exclusive no more.
        taxonomy = self._job.taxonomy
        most = most_values(train.targets.positives, taxonomy, self.labels)
        exclusive = tuple(each for each in config.exclusive if most.get(each, 2) < 2)
        config = replace(config, exclusive=exclusive)
        rivals = Rivals(config.attribute_of(taxonomy, self.labels))
        self._net.rivals = rivals.to(self._job.device)
        return config, self._net


def _changes(
    release: Release,
    now: Taxonomy,
    leaves: Sequence[str],
    labels: Sequence[str],
    encode: Callable[[Sequence[Product]], Tensor],
) -> dict[str, RowChange[str]]:
    """What the rows of each head stood for and are to stand for, by prefix of its tensors."""
    before = release.taxonomy
    of_categories, of_labels = category_names(before, now), label_names(before, now)
    old_leaves = () if release.categories is None else release.categories.ids
    old_labels = () if release.labels is None else release.labels.ids
    return {
        "category.department.": RowChange(
            before.departments, now.departments, of_categories, encode
        ),
        "category.leaf.": RowChange(old_leaves, leaves, of_categories, encode),
        # Its first row stands for no category.
        "told.embedding.": RowChange(old_leaves, leaves, of_categories, encode, first=1),
        "attribute.": RowChange(old_labels, labels, of_labels, encode),
    }
