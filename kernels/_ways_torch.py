"""Which way to the logits wins in plain torch.

A small model of time, as ``_variants`` is for GPUs. Its constants were fitted to two cores of a
server at every point of ``benchmarks/kernels``; only their ratios matter for the choice, which that
benchmark compares with the best. They hold for a CPU: on a GPU, where this path is for what the
kernels do not take, they are used all the same.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

__all__ = ["WAYS", "Problem", "Way", "choose"]

Way = Literal["sampled", "grouped"]
WAYS: tuple[Way, ...] = get_args(Way)

# Rows are widened at once up to so many, however fast it would be: 512 MB in float32.
_MOST_ELEMENTS = 128_000_000
# Up to so many elements of rows caches hold them, and the allocator has the memory at hand.
_KEPT_ELEMENTS = 12_000_000

# In nanoseconds.
_SAMPLED_NS = 230_000.0
_SAMPLED_ENTRY_NS = 14.0
_SAMPLED_PRODUCT_NS = 0.095  # a multiplication of one dot product of many
_FAR_PRODUCT_NS = 0.17  # the same where rows are read from beyond the caches
_TOUCHED_NS = 40_000.0
_TOUCHED_LABEL_NS = 0.8  # for every label, touched or not
_WIDENED_NS = 0.43
_WIDENED_FAR_NS = 2.2  # besides, beyond the caches
_GROUPED_NS = 220_000.0
_GROUP_NS = 80_000.0
_GROUPED_ROW_NS = 450.0  # a product's place
_GROUPED_ENTRY_NS = 4.3
_COPIED_NS = 0.23
_GROUPED_PRODUCT_NS = 0.017  # a multiplication in a product of matrices


class Problem(NamedTuple):
    """What the choice depends on.

    Attributes:
        num_products: B; num_features: D; num_labels: L; num_entries: N, the batch's relevant
            (product, label) pairs.
        num_groups: the batch's distinct mask rows; num_row_labels: their labels, together.
        is_narrow: weights are narrower than what is multiplied, and must be widened.
    """

    num_products: int
    num_features: int
    num_labels: int
    num_entries: int
    num_groups: int
    num_row_labels: int
    is_narrow: bool

    def sampled_ns(self) -> float:
        """The model's time of ``sampled``; infinite where it would take too much memory."""
        elements = min(self.num_row_labels, self.num_labels) * self.num_features
        far_elements = max(0, elements - _KEPT_ELEMENTS)
        of_product = _FAR_PRODUCT_NS if far_elements else _SAMPLED_PRODUCT_NS
        of_entry = _SAMPLED_ENTRY_NS + of_product * self.num_features
        sampling_ns = _SAMPLED_NS + self.num_entries * of_entry
        if not self.is_narrow:
            return sampling_ns
        if elements > _MOST_ELEMENTS:
            return math.inf
        touching_ns = _TOUCHED_NS + _TOUCHED_LABEL_NS * self.num_labels
        widening_ns = _WIDENED_NS * elements + _WIDENED_FAR_NS * far_elements
        return sampling_ns + touching_ns + widening_ns

    def grouped_ns(self) -> float:
        """The model's time of ``grouped``."""
        of_entry = _GROUPED_ENTRY_NS + _GROUPED_PRODUCT_NS * self.num_features
        copying_ns = self.num_row_labels * self.num_features * _COPIED_NS
        groups_ns = _GROUPED_NS + _GROUP_NS * self.num_groups + _GROUPED_ROW_NS * self.num_products
        return groups_ns + copying_ns + self.num_entries * of_entry


def choose(problem: Problem) -> Way:
    """The way that the model of time prefers; ``sampled`` of equals."""
    return "sampled" if problem.sampled_ns() <= problem.grouped_ns() else "grouped"
