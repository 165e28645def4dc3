"""dhpc-amazon as a system that starts from a release, under the same or a changed taxonomy.

A department's classifier is found again by the department's id, and its rows by their leaves: a
leaf that moved to another department is new there. A classifier that was not there (a new
department's, or one whose department had a single leaf) begins as a copy of the department
classifier, but for its last layer, which tells its leaves' names apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.dhpc import (
    DEPARTMENT,
    DhpcCategories,
    DhpcConfig,
    DhpcNet,
    department_rows,
    dhpc_categories,
)
from models.encoders import TextEncoder
from models.errors import ModelError
from models.loading import load_predictor
from models.product import Product
from models.release import Release
from models.segments import SegmentPreparer
from training.carry_over import (
    RowChange,
    carry_over,
    category_names,
    classifier_of_names,
    in_batches,
)
from training.dhpc import DhpcSystem
from training.features import encoder_digest
from training.recipe import DhpcSettings
from training.system import Job
from training.targets import label_spaces

__all__ = ["RefreshedDhpc"]


class RefreshedDhpc(DhpcSystem):
    """A dhpc with a release's bodies, heads and segments; the recipe says how it learns.

    What shapes the networks is the release's, whatever the recipe says.
    """

    def __init__(self, job: Job, release: Release) -> None:
        settings = job.recipe.system
        if not isinstance(settings, DhpcSettings):
            raise TypeError(f"a dhpc is not made from {type(settings).__name__}")
        predictor = load_predictor(release, torch.device("cpu"), "float32")
        if not isinstance(predictor.preparer, SegmentPreparer):
            raise ModelError(f"release {release.id} is no dhpc")
        old = dhpc_categories(predictor)
        config = DhpcConfig.from_json(release.config)
        if settings.gear == "frozen" and config.encoder is not None and config.bodies != "shared":
            raise ModelError(
                f"release {release.id} has an encoder for each classifier, and frozen ones are "
                "not read once for all: give system.gear=finetune"
            )
        self._job = job
        # All layers that the release's encoder has are read.
        self._settings = replace(settings, first_layers=None)
        self._release = release
        self.preparer = predictor.preparer
        self.preparer_key = json.dumps(["dhpc", release.manifest_sha256])
        self.categories, self.labels = label_spaces(job.taxonomy)
        self._config = config
        net = DhpcNet(
            config, department_rows(job.taxonomy, self.categories), dropout=settings.dropout
        )
        self._net = _filled(net, old, predictor.preparer, release, job, self.categories.ids)
        body = net.body(DEPARTMENT)
        self._encoder = body.to(job.device).eval() if isinstance(body, TextEncoder) else None
        self._digest = "" if self._encoder is None else encoder_digest(self._encoder)

    def identity(self) -> Mapping[str, Any]:
        """The release that it starts from."""
        return {"release": self._release.manifest_sha256}


def _filled(
    net: DhpcNet,
    old: DhpcCategories,
    preparer: SegmentPreparer,
    release: Release,
    job: Job,
    leaves: Sequence[str],
) -> DhpcNet:
    """The network with the release's weights, classifiers by department, rows by id."""
    before, now = release.taxonomy, job.taxonomy
    old_row = {department: row for row, department in enumerate(before.departments)}
    came_from = {DEPARTMENT: DEPARTMENT}
    for row, name in net.leaf_names.items():
        known = old_row.get(now.departments[row], -1)
        came_from[name] = old.net.leaf_names.get(known, DEPARTMENT)
    wanted = net.state_dict()
    weights = _by_classifier(release.weights(), wanted, came_from)

    def reads(name: str) -> Callable[[Sequence[Product]], Tensor]:
        def encode(products: Sequence[Product]) -> Tensor:
            head, body = old.net.head(name), old.net.body(name)
            return in_batches(
                preparer.prepare(products),
                head.last.in_features,
                lambda batch: head.hidden(old.read(body, batch)),
            )

        return encode

    named = category_names(before, now)
    changes = {
        f"heads.{DEPARTMENT}.last.": RowChange(
            before.departments, now.departments, named, reads(DEPARTMENT)
        )
    }
    old_leaves = old.categories.ids
    for row, name in net.leaf_names.items():
        source = came_from[name]
        if source == DEPARTMENT:
            names = reads(DEPARTMENT)([named(leaves[each]) for each in net.leaves_of[row]])
            weight, bias = classifier_of_names(names)
            weights |= {f"heads.{name}.last.weight": weight, f"heads.{name}.last.bias": bias}
        else:
            known = old_row[now.departments[row]]
            changes[f"heads.{name}.last."] = RowChange(
                [old_leaves[each] for each in old.net.leaves_of[known]],
                [leaves[each] for each in net.leaves_of[row]],
                named,
                reads(source),
            )
    net.load_state_dict(carry_over(weights, wanted, changes))
    return net


def _by_classifier(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], came_from: Mapping[str, str]
) -> dict[str, Tensor]:
    """The release's tensors under the names that their classifiers have now."""
    found = {}
    for key, fresh in wanted.items():
        part, _, rest = key.partition(".")
        name, _, inner = rest.partition(".")
        source = came_from.get(name, name)
        if part == "heads" and name != source == DEPARTMENT and inner.startswith("last."):
            # Departments' rows say nothing of leaves; these are for their shapes.
            found[key] = fresh
        elif inner:
            found[key] = weights[f"{part}.{source}.{inner}"]
        else:
            found[key] = weights[key]
    return found
