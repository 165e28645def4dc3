"""What a cascade of classifiers answers, and the order in which it asks them.

Legend: B products, P departments, C leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.heads import best_rows

__all__ = ["CascadeNet", "CascadeOutputs", "cascade_outputs"]


@dataclass(frozen=True, slots=True)
class CascadeOutputs:
    """Logits of a cascade, before any temperature.

    Args:
        department: [B, P]. leaf: [B, C], -inf where the leaf's classifier was not asked, +inf for
            the only leaf of a department that was.
        in_beam: [B, P], bool: departments whose leaves take part in the prediction.
        department_of: [C], int64.
    """

    department: Tensor
    leaf: Tensor
    in_beam: Tensor
    department_of: Tensor

    def scores(self, temperatures: Tensor) -> Tensor:
        """Scores of all leaves, [B, C]: the product of both (dhpc-amazon, C)::

        sigmoid(z_d(c) / T_p) * sigmoid(u_c / T_c),  0 for departments outside the beam
        """
        department = torch.sigmoid(self.department / temperatures[0])
        department = torch.where(self.in_beam, department, 0.0)
        return department[:, self.department_of] * torch.sigmoid(self.leaf / temperatures[1])

    def best_departments(self) -> Tensor:
        """The best department of each product, [B], int64; ties: the lowest."""
        return best_rows(self.department, 1)[:, 0]

    def best_leaves(self, departments: Tensor) -> Tensor:
        """The best leaf of a given department of each product, [B], int64; ties: the lowest."""
        is_other = self.department_of[None, :] != departments[:, None]
        return best_rows(self.leaf.masked_fill(is_other, -torch.inf), 1)[:, 0]


class CascadeNet(Protocol):
    """Classifiers by name, with what each stands for: see ``models.dhpc.DhpcNet``."""

    heads: nn.ModuleDict
    leaf_names: Mapping[int, str]
    leaves_of: Sequence[NDArray[np.int64]]
    names: tuple[str, ...]
    department_of: Tensor

    @property
    def beam(self) -> int:
        """So many best departments are asked for their leaves."""
        ...


def cascade_outputs(
    net: CascadeNet,
    features: Callable[[str, NDArray[np.int64]], Tensor],
    num_products: int,
    also: NDArray[np.int64] | None = None,
) -> CascadeOutputs:
    """Ask the department classifier of all products, then the leaf classifiers that follow.

    Args:
        features: [b, E] of the named classifier for some of the products [b].
        also: [B], int64, a further department to ask for each product; -1: none.
    """
    department = net.heads[net.names[0]](features(net.names[0], np.arange(num_products)))
    device = department.device
    in_beam = torch.zeros_like(department, dtype=torch.bool)
    in_beam.scatter_(1, best_rows(department, net.beam), True)
    asked = in_beam.cpu().numpy().copy()
    if also is not None:
        given = np.flatnonzero(also >= 0)
        asked[given, also[given]] = True
    leaf = torch.full((num_products, len(net.department_of)), -torch.inf, device=device)
    for row, leaves in enumerate(net.leaves_of):
        products = np.flatnonzero(asked[:, row])
        if not len(products) or not len(leaves):
            continue
        places = torch.from_numpy(products).to(device)
        columns = torch.from_numpy(leaves).to(device)
        if row in net.leaf_names:
            name = net.leaf_names[row]
            leaf[places[:, None], columns] = net.heads[name](features(name, products))
        else:
            leaf[places[:, None], columns] = torch.inf
    return CascadeOutputs(department, leaf, in_beam, net.department_of)
