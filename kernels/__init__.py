"""Label-masked ops: each a public function, a torch twin, and (where it runs) a Triton kernel."""

from kernels._checks import check_masks
from kernels._dispatch import CHOICES, selected_impls, use_impl
from kernels.masked_bce import Reduction, masked_bce
from kernels.masked_scores import masked_scores, masked_scores_above, masked_top_k
from kernels.modules import MaskedLinear

__all__ = [
    "CHOICES",
    "MaskedLinear",
    "Reduction",
    "check_masks",
    "masked_bce",
    "masked_scores",
    "masked_scores_above",
    "masked_top_k",
    "selected_impls",
    "use_impl",
]
