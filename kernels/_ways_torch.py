"""Which way to the logits wins in plain torch.

A small model of time, as ``_variants`` is for GPUs. Its constants were fitted to two cores of a
server of 2.8 GHz at every point of ``benchmarks/kernels``; only their ratios matter for the choice,
which that benchmark compares with the best. They hold for a CPU: on a GPU, where this path is for
what the kernels do not take, they are used all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["CHUNK_ELEMENTS", "WAYS", "Problem", "Way", "choose"]

Way = Literal["sampled", "dense", "chunked"]
WAYS: tuple[Way, ...] = get_args(Way)

# What ``chunked`` widens at once, or one product's rows: 16 MB in float32, which the allocator
# keeps and a cache half holds.
CHUNK_ELEMENTS = 4_000_000
# Rows are copied or widened at once up to so many, however fast it would be, and as many pairs are
# computed for the wanted ones to be picked from: 512 MB each in float32.
_MOST_ELEMENTS = 128_000_000
# Up to here the allocator has the memory at hand and caches hold it; beyond, its pages are new and
# rows come from memory.
_KEPT_ELEMENTS = 8_000_000

# In nanoseconds.
_SAMPLED_NS = 50_000.0
_SAMPLED_ENTRY_NS = 12.0
_SAMPLED_PRODUCT_NS = 0.085  # a multiplication of one dot product of many
_FAR_PRODUCT_NS = 0.17  # the same where rows are read from beyond the caches
_PICKED_ENTRY_NS = 26.0
_DENSE_PRODUCT_NS = 0.010  # the same in a matrix product
_COPIED_NS = 0.45
_WIDENED_NS = 0.6
_WIDENED_NEW_NS = 1.5
_MARKING_NS = 200_000.0
_MARKED_LABEL_NS = 3.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What the choice depends on.

    Args:
        num_products: B; num_features: D; num_labels: L; num_entries: N, the batch's relevant
            (product, label) pairs; num_touched: labels that differ among them, or a bound.
        num_row_labels: labels of the batch's distinct mask rows, together.
        is_narrow: weights are narrower than what is multiplied, and must be widened.
    """

    num_products: int
    num_features: int
    num_labels: int
    num_entries: int
    num_touched: int
    num_row_labels: int
    is_narrow: bool

    def nanoseconds(self, way: Way) -> float:
        """The model's time of a way; infinite where it cannot be taken."""
        if way == "dense":
            return self._dense_ns()
        if not self.is_narrow:
            return self._sampling_ns() if way == "sampled" else math.inf
        if way == "sampled":
            return self._marking_ns() + self._widening_ns() + self._sampling_ns()
        return self._chunked_ns()

    @property
    def _row_elements(self) -> int:
        return self.num_touched * self.num_features

    def _sampling_ns(self) -> float:
        is_far = self._row_elements > _KEPT_ELEMENTS
        of_product = _FAR_PRODUCT_NS if is_far else _SAMPLED_PRODUCT_NS
        of_entry = _SAMPLED_ENTRY_NS + of_product * self.num_features
        return _SAMPLED_NS + self.num_entries * of_entry

    def _marking_ns(self) -> float:
        """Finding the touched labels."""
        return _MARKING_NS + _MARKED_LABEL_NS * self.num_labels

    def _widening_ns(self) -> float:
        """Widening all touched rows at once."""
        elements = self._row_elements
        if elements > _MOST_ELEMENTS:
            return math.inf
        return elements * (_WIDENED_NS if elements <= _KEPT_ELEMENTS else _WIDENED_NEW_NS)

    def _dense_ns(self) -> float:
        elements = self._row_elements
        if max(elements, self.num_products * self.num_touched) > _MOST_ELEMENTS:
            return math.inf
        making_ns = self._widening_ns() if self.is_narrow else _COPIED_NS * elements
        multiplying_ns = _DENSE_PRODUCT_NS * self.num_products * elements
        picking_ns = _PICKED_ENTRY_NS * self.num_entries
        return self._marking_ns() + making_ns + multiplying_ns + picking_ns

    def _chunked_ns(self) -> float:
        of_chunk = CHUNK_ELEMENTS / max(1, self.num_features)
        num_chunks = self.num_entries / of_chunk
        touched = max(1, self.num_touched)
        # As if every chunk drew its labels at random; but a mask row's lie in few chunks.
        widened = num_chunks * touched * (1 - math.exp(-of_chunk / touched))
        widened = min(widened, self.num_entries, max(touched, self.num_row_labels))
        widening_ns = widened * self.num_features * _WIDENED_NS
        # Once for the whole batch, before anything is chosen.
        marking_ns = (1 + max(1.0, num_chunks)) * self._marking_ns()
        return marking_ns + widening_ns + self._sampling_ns()


def choose(problem: Problem) -> Way:
    """The way that the model of time prefers; the first of equals.

    ``chunked`` only where the batch's rows are more than one chunk's: else it is ``sampled``.
    """
    ways = WAYS
    if problem.num_entries * problem.num_features <= CHUNK_ELEMENTS:
        ways = ("sampled", "dense")
    return min(ways, key=problem.nanoseconds)
