"""Weights of a release under a changed taxonomy: rows are carried over by id, new ones start from
their names.

A row of a head says where in the features' space an id's products lie. Where an id is new, nothing
is known of it but its name, and the model can read names as it reads products. How rows follow
from names is learned from the rows that there are: a ridge regression from the features of the
known ids' names to their rows predicts the new ones. Of a classifier that is all new, the rows tell
its own names apart.

Legend: K known ids, M new ids, E features, R values of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from models.errors import ModelError
from models.prepare import Prepared
from models.product import Product
from models.taxonomy import Taxonomy
from training.predictions import plan

__all__ = [
    "RowChange",
    "carry_over",
    "category_names",
    "classifier_of_names",
    "in_batches",
    "label_names",
    "rows_from_names",
]

# Of name features of length 1: a name that no known one is like gets the mean row.
_RIDGE = 1.0
# Logits at most: what is learned later has to overrule them.
_SURE = 2.0

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True, slots=True)
class RowChange(Generic[Id]):
    """What rows stood for and are to stand for.

    Attributes:
        before, now: ids in the order of rows.
        named: a product that holds nothing but an id's name, of ids of either taxonomy.
        encode: features [n, E] of n products, as the rows read them in the release; called only
            where an id is new.
        first: row of the first id; the rows before it stand for no id and stay.
    """

    before: Sequence[Id]
    now: Sequence[Id]
    named: Callable[[Id], Product]
    encode: Callable[[Sequence[Product]], Tensor]
    first: int = 0

    @property
    def added(self) -> list[Id]:
        """Ids that are new."""
        known = frozenset(self.before)
        return [each for each in self.now if each not in known]


def carry_over(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    changes: Mapping[str, RowChange[Any]],
) -> dict[str, Tensor]:
    """Weights for a network whose heads have other rows than those of a release.

    Args:
        weights: the release's. wanted: the network's own, for their shapes.
        changes: by prefix of a head's tensors; each of these has a row an id.

    Raises:
        ModelError: a tensor of no head differs in shape, is missing or is unknown.
    """
    strange = sorted(weights.keys() ^ wanted.keys())
    if strange:
        raise ModelError(f"the release's weights are of another network: {strange[0]!r} differs")
    carried = dict(weights)
    for prefix, change in changes.items():
        names = sorted(name for name in weights if name.startswith(prefix))
        if not names or tuple(change.before) == tuple(change.now):
            continue
        row_of = {each: row for row, each in enumerate(change.before)}
        whole = torch.cat(
            [weights[name][change.first :].float().reshape(len(row_of), -1) for name in names],
            dim=1,
        )
        fresh = iter(_new_rows(whole, change, row_of))
        rows = torch.stack(
            [whole[row_of[each]] if each in row_of else next(fresh) for each in change.now]
        )
        start = 0
        for name in names:
            width = weights[name][0].numel()
            part = rows[:, start : start + width].reshape(len(rows), *weights[name].shape[1:])
            part = part.to(weights[name].dtype)
            carried[name] = torch.cat([weights[name][: change.first], part])
            start += width
    for name, tensor in wanted.items():
        if carried[name].shape != tensor.shape:
            raise ModelError(
                f"{name} has shape {tuple(carried[name].shape)} in the release and "
                f"{tuple(tensor.shape)} in the network: a taxonomy cannot change that"
            )
    return carried


def _new_rows(rows: Tensor, change: RowChange[Id], row_of: Mapping[Id, int]) -> Sequence[Tensor]:
    added = change.added
    if not added:
        return []
    known = change.encode([change.named(each) for each in row_of])
    new = change.encode([change.named(each) for each in added])
    return list(rows_from_names(known, rows, new))


def in_batches(prepared: Prepared, num_features: int, read: Callable[[Prepared], Tensor]) -> Tensor:
    """Features [n, E] of n prepared products, read in batches of like cost.

    Args:
        num_features: E. read: features [b, ...] of a batch, E values each.
    """
    features = torch.empty(len(prepared), num_features)
    with torch.inference_mode():
        for rows in plan(prepared.costs):
            features[torch.from_numpy(rows)] = read(prepared.take(rows)).float().flatten(1)
    return features


def rows_from_names(known: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """Rows [M, R] for new names: ridge regression with an intercept, over names of length 1.

    Args:
        known: [K, E], features of the known names. rows: [K, R], theirs. new: [M, E].
    """
    ridge = Ridge(alpha=_RIDGE)
    ridge.fit(_unit(known).numpy(), rows.double().numpy())
    found = ridge.predict(_unit(new).numpy()).reshape(len(new), rows.shape[1])
    return torch.from_numpy(found).to(rows.dtype)


def classifier_of_names(names: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [M, E] and bias [M] of a classifier none of whose rows is known.

    Ridge regression from the features of the names [M, E] to their logits, ``_SURE`` for a name's
    own row and ``-_SURE`` for the others. The best row of a name is its own; how sure it is, is
    left to what is learned: of many names all logits are below 0.
    """
    features = names.detach().cpu().double()
    # As much as ``_RIDGE`` is for names of length 1.
    length = features.square().sum(dim=1).mean().clamp(min=1e-12)
    ridge = Ridge(alpha=_RIDGE * float(length))
    ridge.fit(features.numpy(), _SURE * (2 * torch.eye(len(features)) - 1).double().numpy())
    weight = torch.from_numpy(ridge.coef_.reshape(features.shape))
    bias = torch.from_numpy(ridge.intercept_.reshape(-1))
    return weight.to(names.dtype), bias.to(names.dtype)


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.detach().cpu().double(), dim=1)


def category_names(before: Taxonomy, now: Taxonomy) -> Callable[[str], Product]:
    """A category's name as a title, its ancestors' as the description."""

    def named(category_id: str) -> Product:
        taxonomy = now if category_id in now.categories else before
        path = taxonomy.path(category_id)
        return _named(category_id, path[-1].name, " ".join(node.name for node in path[:-1]))

    return named


def label_names(before: Taxonomy, now: Taxonomy) -> Callable[[str], Product]:
    """A label's value as a title, its attribute as the description."""
    current = frozenset(now.label_ids())

    def named(label_id: str) -> Product:
        label = (now if label_id in current else before).label(label_id)
        return _named(label_id, label.value, label.attribute)

    return named


def _named(identifier: str, title: str, description: str) -> Product:
    return Product(identifier, None, "", title, description, (), (), None)
