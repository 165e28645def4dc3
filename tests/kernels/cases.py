"""Every kernel variant that the launchers can start, with their constants."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from kernels import _bce_kernels_triton as bce
from kernels import (
    _logits_triton,
    _rows_triton,
    _score_kernels_triton,
    masked_bce_triton,
    masked_scores_triton,
)
from kernels import _select_kernels_triton as select
from kernels._variants import VARIANTS, every_tiles
from tests.kernels.compiling import Case

__all__ = ["cases"]

_FLOATS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# Features come in the wider of both dtypes: a narrower weight is widened as it is read.
_PAIRS = [
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.float32, torch.bfloat16),
]
_INDICES = {
    "mask_indptr_ptr": "*i64",
    "mask_indices_ptr": "*i64",
    "mask_rows_ptr": "*i64",
    "indptr_ptr": "*i64",
    "rows_ptr": "*i64",
    "order_ptr": "*i64",
    "first_ptr": "*i32",
    "num_blocks_ptr": "*i32",
    "listed_indptr_ptr": "*i64",
    "listed_indices_ptr": "*i64",
    "flags_ptr": "*i8",
    "kept_indptr_ptr": "*i64",
    "labels_ptr": "*i64",
    "counts_ptr": "*i64",
    "products_ptr": "*i32",
    "entries_ptr": "*i64",
    "num_touched_ptr": "*i64",
}
_VALUES = {
    "out_ptr": "*fp32",
    "scores_ptr": "*fp32",
    "kept_ptr": "*fp32",
    "best_ptr": "*fp32",
    "values_ptr": "*fp32",
    "losses_ptr": "*fp32",
    "slopes_ptr": "*fp32",
    "grad_losses_ptr": "*fp32",
    "thresholds_ptr": "*fp32",
    "positive_weight_ptr": "*fp32",
    "negative_weight_ptr": "*fp32",
    "inverse_temperature": "fp32",
    "threshold": "fp32",
    "smoothing": "fp32",
    "smoothing_prior": "fp32",
    "bootstrap": "fp32",
}
_SIZES = (
    "stride_xb",
    "stride_wl",
    "num_products",
    "num_features",
    "num_labels",
    "num_out",
    "num_masks",
    "num_steps",
    "num_entries",
    "num_kept",
    "k",
)
# Sizes of entries grow beyond 2^31.
_LARGE = {"num_out", "num_entries", "num_kept"}


def _types(**given: str) -> dict[str, str]:
    sizes = {name: "i64" if name in _LARGE else "i32" for name in _SIZES}
    return _INDICES | _VALUES | sizes | given


def _case(name: str, kernel: Any, types: dict[str, str], **constants: Any) -> Case:
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages") if key in constants}
    return Case(name, kernel, types, constants, options)


def _scores() -> Iterator[Case]:
    for variant, (x, w) in product(VARIANTS, _PAIRS):
        kernel = getattr(_score_kernels_triton, f"{variant}_kernel")
        types = _types(x_ptr=f"*{_FLOATS[x]}", w_ptr=f"*{_FLOATS[w]}", bias_ptr="*fp32")
        for tile in every_tiles(variant, x.itemsize):
            constants: dict[str, Any] = {"BLOCK_N": tile.block_n, "BLOCK_D": tile.block_d}
            if variant != "gather":
                constants |= {"BLOCK_M": tile.block_m, **_logits_triton.dot_options(x)}
            # The sigmoid is the one that needs more registers.
            yield _case(
                f"{variant}-{_FLOATS[x]}-{_FLOATS[w]}-{tile.block_m}x{tile.block_n}",
                kernel,
                types,
                SIGMOID=True,
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                **constants,
            )


def _gradients() -> Iterator[Case]:
    tiles = masked_bce_triton
    for x, w in _PAIRS:
        types = _types(w_ptr=f"*{_FLOATS[w]}", out_ptr=f"*{_FLOATS[x]}")
        name = f"{_FLOATS[x]}-{_FLOATS[w]}"
        yield _case(
            f"grad-features-gather-{name}",
            bce.grad_features_gather_kernel,
            types,
            BLOCK_N=tiles.GRAD_BLOCK_N,
            BLOCK_D=tiles.GRAD_BLOCK_D,
        )
        yield _case(
            f"grad-features-grouped-{name}",
            bce.grad_features_grouped_kernel,
            types,
            BLOCK_M=tiles.GROUPED_BLOCK_M,
            BLOCK_N=tiles.GROUPED_BLOCK_N,
            BLOCK_D=tiles.GROUPED_BLOCK_D,
            **_logits_triton.slope_dot_options(x),
        )
        yield _case(
            f"grad-weight-{name}",
            bce.grad_weight_kernel,
            _types(
                x_ptr=f"*{_FLOATS[x]}",
                grad_weight_ptr=f"*{_FLOATS[w]}",
                grad_bias_ptr="*fp32",
                first_ptr="*i64",
            ),
            BY_LABEL=True,
            BLOCK_E=tiles.GRAD_BLOCK_N,
            BLOCK_D=tiles.GRAD_BLOCK_D,
        )


def _others() -> Iterator[Case]:
    block_n = masked_bce_triton.BLOCK_N
    yield _case("mark", bce.mark_kernel, _types(), FLAG=1, BLOCK_P=masked_bce_triton.BLOCK_P)
    yield _case("owners", bce.entry_owners_kernel, _types(), BLOCK_N=block_n)
    yield _case(
        "loss",
        bce.loss_kernel,
        _types(),
        HAS_POSITIVE_WEIGHT=True,
        HAS_NEGATIVES=True,
        BLOCK_N=block_n,
    )
    for per_label in (True, False):
        for name in ("count_above", "above"):
            yield _case(
                f"{name}-{'per-label' if per_label else 'scalar'}",
                getattr(select, f"{name}_kernel"),
                _types(),
                PER_LABEL=per_label,
                BLOCK_N=masked_scores_triton.BLOCK_N,
            )
    for block_k in masked_scores_triton.TOP_BLOCKS_K:
        yield _case(
            f"top-{block_k}",
            select.top_k_kernel,
            _types(),
            BLOCK_K=block_k,
            BLOCK_N=masked_scores_triton.TOP_BLOCK_N,
        )
    block_b, num_warps = _rows_triton.BLOCK_B, _rows_triton.NUM_WARPS
    yield _case(
        "entry-indptr",
        _rows_triton.entry_indptr_kernel,
        _types(),
        BLOCK_B=block_b,
        num_warps=num_warps,
    )
    for block_m in sorted({tile.block_m for tile in every_tiles("grouped", 2)}):
        yield _case(
            f"product-blocks-{block_m}",
            _rows_triton.product_blocks_kernel,
            _types(),
            BLOCK_M=block_m,
            BLOCK_B=block_b,
            num_warps=num_warps,
        )


def cases() -> list[Case]:
    """All of them."""
    return [*_scores(), *_gradients(), *_others()]
